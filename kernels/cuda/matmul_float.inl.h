// Products with f32, f16 and bf16 weights: lane i of a warp has the k that are i mod 32, in
// increasing order, and the halving tree adds up what its lanes have (docs/numerics.md). After
// elementwise.inl.h.

#include "kernels/cuda/store.inl.h"

// An element as a matrix has it, and what it is worth.
template <WeightType kType>
struct FloatWeight {
  using Stored = uint16_t;
  DT_DEVICE_MEMBER float Widen(Stored v) {
    return kType == WeightType::kF16 ? HalfToFloat(v) : FloatOf(static_cast<uint32_t>(v) << 16);
  }
};
template <>
struct FloatWeight<WeightType::kF32> {
  using Stored = float;
  DT_DEVICE_MEMBER float Widen(Stored v) { return v; }
};

template <WeightType kType>
DT_DEVICE float LoadFloat(const uint8_t* row, int64_t i) {
  using Weight = FloatWeight<kType>;
  using Stored = typename Weight::Stored;
  return Weight::Widen(LoadVector<Stored>(row + i * static_cast<int64_t>(sizeof(Stored))));
}

// Rows of an embedding as GGUF has them: a thread for each element.
DT_KERNEL void FloatEmbeddingKernel(EmbeddingArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int k = ColumnOfThread<1>();
  if (k >= args.cols) return;
  const uint8_t* from = args.table + args.tokens[row] * args.row_bytes;
  float v = 0.0f;
  if (args.type == WeightType::kF32) v = LoadFloat<WeightType::kF32>(from, k);
  if (args.type == WeightType::kF16) v = LoadFloat<WeightType::kF16>(from, k);
  if (args.type == WeightType::kBF16) v = LoadFloat<WeightType::kBF16>(from, k);
  args.y[row * args.y_stride + k] = args.scale == 1.0f ? v : v * args.scale;
}

// --- Few rows: a warp has one weight row, or two that share what is loaded of activations, with so
// many loads of weights under way that few warps keep the memory busy.

constexpr int kFloatWarps = 2;

template <WeightType kType, int kTokens, int kRows>
struct FloatFewSums {
  static constexpr int kSteps = kTokens * kRows == 1 ? 32 : 16;  // of 32 k, at once
  using Weight = FloatWeight<kType>;
  using Stored = typename Weight::Stored;

  const Stored* w[kRows];  // this lane's k of the first 32
  const float* x[kTokens];
  Floats<kTokens * kRows> partial;  // [token][row]

  // The k of [first, first + 32 kCount), of which k is the end unless all are there. k past the end
  // in the last step are zeros.
  template <int kCount, bool kAll>
  DT_DEVICE_MEMBER void Add(FloatFewSums& sums, int first, int k) {
    Stored a[kRows][kCount];
    DT_UNROLL
    for (int s = 0; s < kCount; ++s) {
      const int i = first + s * kWarp;
      DT_UNROLL
      for (int r = 0; r < kRows; ++r) {
        a[r][s] = kAll || i + Lane() < k ? LoadVector<Stored>(sums.w[r] + i) : Stored{0};
      }
    }
    DT_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      float b[kCount];
      DT_UNROLL
      for (int s = 0; s < kCount; ++s) {
        const int i = first + s * kWarp;
        b[s] = kAll || i + Lane() < k ? sums.x[t][i] : 0.0f;
      }
      DT_UNROLL
      for (int s = 0; s < kCount; ++s) {
        if (!kAll && first + s * kWarp >= k) continue;
        DT_UNROLL
        for (int r = 0; r < kRows; ++r) {
          float& sum = sums.partial.v[t * kRows + r];
          sum = Fma(Weight::Widen(a[r][s]), b[s], sum);
        }
      }
    }
  }
};

// Rows of a matrix so small that the rows of all warps together find room in the L2 cache are asked
// for at once.
template <typename Stored>
DT_DEVICE void PrefetchRow(const DeviceMatmulArgs& args, const Stored* row) {
  constexpr int kMostRows = 1024, kLine = 128 / static_cast<int>(sizeof(Stored));
  if (args.n > kMostRows) return;
  for (int i = Lane() * kLine; i < args.k; i += kWarp * kLine) PrefetchL2(row + i);
}

// Blocks x: kFloatWarps * kRows weight rows from first_row on; y: kTokens rows of activations.
template <WeightType kType, int kTokens, int kRows>
DT_KERNEL void FloatFewKernel(DeviceMatmulArgs args, int64_t first_row, int64_t past_row) {
  using Sums = FloatFewSums<kType, kTokens, kRows>;
  using Stored = typename Sums::Stored;
  int tile = 0;
  const int64_t n = first_row + GlobalWarp() * kRows;
  if (!SelectRows(&args, &tile) || n >= past_row) return;
  const int first = tile * kTokens;
  if (first >= args.rows) return;
  const int tokens = Smaller(kTokens, args.rows - first);
  const int rows = static_cast<int>(Smaller<int64_t>(kRows, past_row - n));
  Sums sums = {};
  DT_UNROLL
  for (int r = 0; r < kRows; ++r) {  // the last one for those that are not there
    const Stored* row =
        reinterpret_cast<const Stored*>(args.w) + (n + Smaller(r, rows - 1)) * args.k;
    if (kRows == 1) PrefetchRow(args, row);
    sums.w[r] = row + Lane();
  }
  DT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const int64_t row = first + Smaller(t, tokens - 1);
    sums.x[t] = args.x.f32 + row * args.x.f32_stride + Lane();
  }
  constexpr int kSteps = Sums::kSteps, kFewSteps = 8;
  int k = 0;
  for (; k + kSteps * kWarp <= args.k; k += kSteps * kWarp) {
    Sums::template Add<kSteps, true>(sums, k, args.k);
  }
  if (k < args.k && args.k - k <= kFewSteps * kWarp) {
    Sums::template Add<kFewSteps, false>(sums, k, args.k);
  } else if (k < args.k) {
    Sums::template Add<kSteps, false>(sums, k, args.k);
  }
  TreeSums(sums.partial, kTokens * kRows);
  if (Lane() != 0) return;
  DT_UNROLL
  for (int i = 0; i < kTokens * kRows; ++i) {
    const int t = i / kRows, r = i % kRows;
    if (t < tokens && r < rows) StoreProduct(args, first + t, n + r, sums.partial.v[i]);
  }
}

// --- Many rows: a block brings 64 k of its weight rows and activations into shared memory, two
// stages ahead; a warp has 8 x 8 outputs of them in registers.

template <WeightType kType, int kTokenWarps>
struct FloatTileShape {
  static constexpr int kWarpRows = 8, kWarpTokens = 8;
  static constexpr int kRowWarps = 4;
  static constexpr int kRows = kRowWarps * kWarpRows;
  static constexpr int kTokens = kTokenWarps * kWarpTokens;
  static constexpr int kThreads = kRowWarps * kTokenWarps * kWarp;
  static constexpr int kK = 64, kStages = 3;
};

// The sums over lanes of kCount values that each has: lane i gets those of values
// [i kCount / 32, (i + 1) kCount / 32), as the first of its own. In each step a pair of lanes
// shares the values between them, so that no sum is made twice.
template <int kCount, int kHalf = kWarp / 2>
DT_DEVICE void SpreadTreeSums(float* v) {
  const bool upper = (Lane() & kHalf) != 0;
  DT_UNROLL
  for (int i = 0; i < kCount / 2; ++i) {
    const float keep = upper ? v[kCount / 2 + i] : v[i];
    const float give = upper ? v[i] : v[kCount / 2 + i];
    v[i] = keep + ShuffleXor(give, kHalf);
  }
  if constexpr (kHalf > 1) SpreadTreeSums<kCount / 2, kHalf / 2>(v);
}

// kRows rows of a matrix, 64 k of which a stage has, in pieces of 16 bytes. What is past the last
// row is that row once more, and is not stored.
template <typename T, int kRows, int kThreads>
struct StagedRows {
  static constexpr int kPer = 16 / static_cast<int>(sizeof(T));
  static constexpr int kAcross = 64 / kPer;
  static constexpr int kPieces = kRows * kAcross;
  static constexpr int kOwn = (kPieces + kThreads - 1) / kThreads;  // of a thread
  static_assert(kThreads % kAcross == 0);  // so that all of them have the same k

  const T* rows;
  int32_t own[kOwn];  // where this thread's pieces are in them, in the first stage

  DT_DEVICE_MEMBER StagedRows Of(const T* rows, int64_t stride, int last) {
    StagedRows from = {rows, {}};
    DT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int piece = i * kThreads + ThreadIndex();
      const int64_t row = Smaller(piece / kAcross, last);
      from.own[i] = static_cast<int32_t>(row * stride) + piece % kAcross * kPer;
    }
    return from;
  }

  // k [first, first + 64) to `to` from `at` on; zeros from k on, which is the end of a piece.
  template <typename Shared>
  DT_DEVICE_MEMBER void Bring(const StagedRows& from, Shared& to, int at, int first, int k) {
    const int col = first + ThreadIndex() % kAcross * kPer;
    DT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int piece = i * kThreads + ThreadIndex();
      if (kPieces % kThreads != 0 && piece >= kPieces) break;
      if (col < k) {
        CopyAsync16(to, at + piece * kPer, from.rows + first + from.own[i]);
      } else {
        WriteShared(to, at + piece * kPer, Int4{});
      }
    }
  }
};

// What a warp adds to its outputs for 32 k from `w_at` and `x_at` on.
template <typename Weight, typename Weights, typename Tokens>
DT_DEVICE void AddOuterProduct(Weights& weights, int w_at, Tokens& xs, int x_at,
                               float (&sums)[64]) {
  constexpr int kSide = 8, kK = 64;
  float a[kSide], b[kSide];
  DT_UNROLL
  for (int i = 0; i < kSide; ++i) {
    a[i] = Weight::Widen(weights[w_at + i * kK + Lane()]);
    b[i] = xs[x_at + i * kK + Lane()];
  }
  DT_UNROLL
  for (int r = 0; r < kSide; ++r) {
    DT_UNROLL
    for (int t = 0; t < kSide; ++t) sums[r * kSide + t] = Fma(a[r], b[t], sums[r * kSide + t]);
  }
}

// Blocks x: weight rows from first_row on; y: rows of activations. All rows begin on 16 bytes.
template <WeightType kType, int kTokenWarps>
DT_KERNEL_OF((FloatTileShape<kType, kTokenWarps>::kThreads))
void FloatTileKernel(DeviceMatmulArgs args, int64_t first_row, int64_t past_row) {
  using Shape = FloatTileShape<kType, kTokenWarps>;
  using Weight = FloatWeight<kType>;
  using Stored = typename Weight::Stored;
  constexpr int kK = Shape::kK, kWeights = Shape::kRows * kK, kXs = Shape::kTokens * kK;
  DT_SHARED(Stored, weights, Shape::kStages * kWeights);
  DT_SHARED(float, xs, Shape::kStages* kXs);
  int tile = 0;
  if (!SelectRows(&args, &tile)) return;
  const int first = tile * Shape::kTokens;
  if (first >= args.rows) return;
  const int64_t n = first_row + int64_t{BlockIndex()} * Shape::kRows;
  const int rows = static_cast<int>(Smaller<int64_t>(Shape::kRows, past_row - n));
  const int tokens = Smaller(Shape::kTokens, args.rows - first);
  using StagedWeights = StagedRows<Stored, Shape::kRows, Shape::kThreads>;
  using StagedXs = StagedRows<float, Shape::kTokens, Shape::kThreads>;
  const auto from_w =
      StagedWeights::Of(reinterpret_cast<const Stored*>(args.w) + n * args.k, args.k, rows - 1);
  const auto from_x =
      StagedXs::Of(args.x.f32 + first * args.x.f32_stride, args.x.f32_stride, tokens - 1);
  const int warp_row = WarpIndex() % Shape::kRowWarps * Shape::kWarpRows;
  const int warp_token = WarpIndex() / Shape::kRowWarps * Shape::kWarpTokens;
  const bool has_outputs = warp_row < rows && warp_token < tokens;

  const auto bring = [&](int stage) {
    const int k = stage * kK, slot = stage % Shape::kStages;
    if (k < args.k) {
      StagedWeights::Bring(from_w, weights, slot * kWeights, k, args.k);
      StagedXs::Bring(from_x, xs, slot * kXs, k, args.k);
    }
    CommitCopies();
  };
  float sums[64] = {};
  const int stages = (args.k + kK - 1) / kK;
  for (int stage = 0; stage < Shape::kStages - 1; ++stage) bring(stage);
  for (int stage = 0; stage < stages; ++stage) {
    WaitCopies<Shape::kStages - 2>();
    SyncBlock();
    bring(stage + Shape::kStages - 1);
    if (!has_outputs) continue;
    const int slot = stage % Shape::kStages;
    const int w_at = slot * kWeights + warp_row * kK, x_at = slot * kXs + warp_token * kK;
    AddOuterProduct<Weight>(weights, w_at, xs, x_at, sums);
    if (stage * kK + kWarp >= args.k) break;
    AddOuterProduct<Weight>(weights, w_at + kWarp, xs, x_at + kWarp, sums);
  }
  if (!has_outputs) return;
  SpreadTreeSums<64>(sums);
  DT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int output = 2 * Lane() + i;
    const int row = warp_row + output / Shape::kWarpTokens;
    const int token = warp_token + output % Shape::kWarpTokens;
    if (row < rows && token < tokens) StoreProduct(args, first + token, n + row, sums[i]);
  }
}
