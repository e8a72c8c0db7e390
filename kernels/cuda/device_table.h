// DeviceTable: how each op is started on a GPU, by one function pointer per op; the only header
// that callers of GPU kernels need.
//
// Two tables have the same kernels: nvcc's, for a GPU, and g++'s over the SIMT shim (kernels/simt).
// Arguments are those of CPU kernels (kernels/ops.h), or those below, with addresses that the
// device can read, for units [begin, end); weights lie in P16. Calls only enqueue: `stream` is a
// cudaStream_t, or a simt::Stream*. Nothing is started for no units. Results are the bits of
// kernels/ref. Constants, thread-safe.
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_

#include <cstdint>

#include "kernels/ops.h"

namespace dovetail::kernels {

// Rows of a product that one of several matrices is for.
struct MatmulGroup {
  int32_t matrix;
  int32_t first_row;  // of the activations
  int32_t rows;
  int32_t y_row;  // the first row of what they become in the last product of a layer
};

// Another whole matrix of the same type and k, for the same activations.
struct MatmulBeside {
  const uint8_t* w;
  int32_t n;
  float* y;
  int64_t y_stride;
  const float* bias;
  float scale;
};

// A product, or one of several matrices of the same shape, one after another, each with rows of its
// own.
struct DeviceMatmulArgs : MatmulArgs {
  // Products that one launch makes beside this one, which is of a whole quantised matrix then,
  // without groups and heads.
  static constexpr int kMostBeside = 2;
  MatmulBeside beside[kMostBeside] = {};
  int32_t num_beside = 0;

  // Raised to 1 where a value that is stored is not finite; null: nobody looks.
  int32_t* not_finite = nullptr;

  int64_t w_stride = 0;           // bytes from one matrix to the next
  int64_t bias_stride = 0;        // from one's bias to the next
  const float* scales = nullptr;  // of each, in place of `scale`

  // Groups that the device has made. w has matrices [first_matrix, first_matrix + num_matrices)
  // alone: a product for each such range. In place of `rows`.
  const MatmulGroup* groups = nullptr;
  const int32_t* num_groups = nullptr;
  int32_t max_groups = 0;
  int32_t max_group_rows = 0;
  int32_t first_matrix = 0;
  int32_t num_matrices = 0;
  bool to_y_row = false;        // results go to MatmulGroup::y_row, else to first_row
  bool f32_from_y_row = false;  // activations of block 0 are read there, else at first_row

  // A matrix of each head: y[row, head] = matrix head * row row * heads + head of the activations,
  // whose strides are those from row to row here. y_head_stride: from head to head in y.
  int32_t heads = 1;
  int64_t y_head_stride = 0;

  int32_t tiles = 0;  // of rows, that a launch sets
};

// The experts of each row and their weights (docs/numerics.md, "Experts"). Unit: rows.
struct RouterArgs {
  enum class Score { kSoftmax, kSigmoid, kSoftmaxOfChosen };
  float* logits;  // [rows, count], may become the scores; null: experts are chosen elsewhere
  const float* choice_bias;  // [count], or null
  int32_t count;
  int32_t num_used;
  Score score;
  bool normalise;
  float scale;
  int32_t num_groups;  // at most 64
  int32_t groups_used;
  bool group_max;     // a group's score is that of its best expert, else the sum of its two best
  int32_t* experts;   // [rows, num_used]: best first
  float* weights;     // [rows, slots]
  int32_t slots;      // num_used, or one more for the shared expert's weight:
  const float* gate;  // [rows]: sigmoid of this; null: 1
};

// Pairs of a row and one of its experts sorted by the expert's place, rows in order. One unit.
struct SortPairsArgs {
  const int32_t* experts;   // [rows, num_used]
  const int32_t* place_of;  // [count]
  int32_t rows;
  int32_t num_used;
  int32_t count;
  int32_t slots;           // num_used, or one more, whose source is the row itself
  int32_t first_pair_row;  // of y
  // Own experts have places [first_place, past_place). Pairs are counted from the first own one in
  // pair_rows and in groups of at most max_group_rows.
  int32_t first_place, past_place;
  int32_t max_group_rows;
  int32_t* begin;         // [count + 1]: the first pair of each place
  int32_t* slot_sources;  // [rows, slots]: rows of y
  int32_t* pair_rows;     // [own pairs]
  MatmulGroup* groups;
  int32_t* num_groups;
};

// Rows rows[0], rows[1], .. of one input become rows 0, 1, .. of another with the same columns, in
// the form of its block, or as f32. Unit: rows, of which only the first past[0] - first[0] are.
struct GatherRowsArgs {
  Activations from;
  Activations to;
  float* to_f32;  // with block 0: row 0 is row first_to_row + first[0] of it
  int32_t first_to_row;
  const int32_t* rows;
  const int32_t* first;
  const int32_t* past;
};

// to[r, i] = from[r, i], or from[index[r], i]. Unit: rows.
struct CopyRowsArgs {
  const float* from;
  int64_t from_stride;
  const int32_t* index;  // null: r
  float* to;
  int64_t to_stride;
  int32_t cols;
};

// An array that is copied between the host's pinned memory and the device's. Both begin on 16
// bytes.
struct CopyPiece {
  void* to;
  const void* from;
  int64_t bytes;  // a multiple of 4
  // If given, *count times count_bytes more, as it says when the copy is made: in either memory.
  const int32_t* count;
  int64_t count_bytes;
};

// What one launch copies.
struct CopyPieces {
  static constexpr int kMost = 12;
  CopyPiece pieces[kMost];
  int32_t num;
};

// How a launch tells the host that it is done, and with it all that its stream had before.
struct DoneSignal {
  uint64_t* flag;    // in the host's pinned memory: how often it was raised; null: nobody is told
  uint64_t* raised;  // the same, on the device
  int32_t* blocks;   // on the device: that are done; 0 between launches
};

// The stored rows of a matrix become its panels of P16.
struct PackArgs {
  WeightType type;  // quantised
  const uint8_t* rows;
  int64_t n, k;
  uint8_t* packed;  // whole panels; on 4 bytes
};

struct DeviceTable {
  const char* name;  // "cuda", "simt"

  void (*rms_norm)(const RmsNormArgs& args, int64_t begin, int64_t end, void* stream);
  // `_quantize`: the same, and the form of the result, whose f32 is args.y.
  void (*rms_norm_quantize)(const RmsNormArgs& args, const Activations& form, int64_t begin,
                            int64_t end, void* stream);
  void (*quantize)(const QuantizeArgs& args, int64_t begin, int64_t end, void* stream);
  void (*matmul)(const DeviceMatmulArgs& args, int64_t begin, int64_t end, void* stream);
  void (*silu_mul)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*gelu_mul)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*swiglu_oai)(const GatedArgs& args, int64_t begin, int64_t end, void* stream);
  void (*silu_mul_quantize)(const GatedArgs& args, const Activations& form, int64_t begin,
                            int64_t end, void* stream);
  void (*gelu_mul_quantize)(const GatedArgs& args, const Activations& form, int64_t begin,
                            int64_t end, void* stream);
  void (*swiglu_oai_quantize)(const GatedArgs& args, const Activations& form, int64_t begin,
                              int64_t end, void* stream);
  void (*sigmoid)(const float* x, float* y, int64_t n, void* stream);
  void (*combine)(const CombineArgs& args, int64_t begin, int64_t end, void* stream);
  void (*rope)(const RopeArgs& args, int64_t begin, int64_t end, void* stream);
  // *flag, on the device, is raised to 1 where something stored is not finite. rope_append: both
  // ropes and then the append, of which k is what the second one rotates.
  void (*rope_append)(const RopeArgs& q, const RopeArgs& k, const KvAppendArgs& append,
                      int64_t begin, int64_t end, int32_t* flag, void* stream);
  void (*kv_append)(const KvAppendArgs& args, int64_t begin, int64_t end, int32_t* flag,
                    void* stream);
  // args.scratch is not used.
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end, void* stream);
  // Splits [begin, end) of tasks [first, past).
  void (*attention_parts)(const AttentionArgs& args, int64_t first, int64_t past, int64_t begin,
                          int64_t end, void* stream);
  void (*attention_merge)(const AttentionArgs& args, int64_t begin, int64_t end, void* stream);
  void (*pack)(const PackArgs& args, void* stream);
  // args.table lies in P16, or in rows if it is of floats; tokens are on the device.
  void (*embedding)(const EmbeddingArgs& args, int64_t begin, int64_t end, void* stream);
  // best[r]: the first column with the largest of x[r, 0 .. cols); -1: one of them is NaN.
  void (*argmax)(const float* x, int64_t stride, int64_t rows, int64_t cols, int32_t* best,
                 void* stream);
  void (*router)(const RouterArgs& args, int64_t begin, int64_t end, void* stream);
  void (*sort_pairs)(const SortPairsArgs& args, void* stream);
  void (*gather_rows)(const GatherRowsArgs& args, int64_t begin, int64_t end, void* stream);
  void (*copy_rows)(const CopyRowsArgs& args, int64_t begin, int64_t end, void* stream);
  // With a signal also where there is nothing to copy.
  void (*copy_pieces)(const CopyPieces& pieces, const DoneSignal& signal, void* stream);
  // *flag is raised where one of `cols` values of one of `rows` rows is not finite.
  void (*check_finite)(const float* x, int64_t stride, int64_t rows, int64_t cols, int32_t* flag,
                       void* stream);
};

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_TABLE_H_
