// GgufFile: one GGUF file (v2 or v3), or all shards of a split one, memory-mapped and checked.
//
// Everything in the file is hostile until checked: counts, lengths, offsets and sizes are compared
// with what is left of the file before they are used, and nothing is allocated from a number that
// the file merely claims. After Open() succeeds, every TensorInfo's bytes lie inside its mapping.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (a fact; the code is ours).
//
// Immutable after Open(), so any thread may read it. Owned by whoever opened it; the tensor data
// and string_views live as long as the object.
#ifndef DOVETAIL_MODEL_GGUF_GGUF_FILE_H_
#define DOVETAIL_MODEL_GGUF_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/weight_type.h"

namespace dovetail::model {

enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
absl::string_view GgufValueTypeName(GgufValueType type);  // "uint32"

// A metadata value. Integers of any width are widened; arrays keep their element type and are typed
// vectors. Arrays of arrays (which no known file has) are refused by Open().
struct GgufValue {
  GgufValueType type = GgufValueType::kUint8;
  GgufValueType element_type = GgufValueType::kUint8;  // of kArray
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
               std::vector<int64_t>, std::vector<double>, std::vector<bool>,
               std::vector<std::string>>
      value;
};

struct GgufTensor {
  std::string name;
  WeightType type = WeightType::kF32;
  std::vector<int64_t> shape;  // ggml's order: shape[0] is the contiguous dimension (columns)
  int shard = 0;               // which file of a split model
  uint64_t offset = 0;         // of the data, from the start of that file
  int64_t bytes = 0;
  int64_t elements() const;
  int64_t columns() const { return shape.empty() ? 1 : shape[0]; }
  int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
};

class GgufFile {
 public:
  // `path` is a file, any shard of a split model, or a directory that holds exactly one model.
  // Errors name the file, the byte offset or key, what was found and what was expected; all missing
  // shards are listed by number, and all tensors with problems by name.
  //
  // With `incomplete`, the first shard is enough: what is missing or cannot be read is said there,
  // and the file has what the other shards hold, for more to be said about it.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path,
                                                        absl::Status* incomplete = nullptr);
  // A header without data, of a file that does not exist; Data() is not for its tensors.
  static std::unique_ptr<GgufFile> FromHeader(
      std::string name, std::vector<std::pair<std::string, GgufValue>> metadata,
      std::vector<GgufTensor> tensors);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  uint32_t version() const;
  const std::string& path() const;                    // as given
  absl::Span<const std::string> shard_paths() const;  // one for an unsplit file
  int64_t file_bytes() const;                         // all shards

  // Metadata in file order (of the first shard).
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const;
  const GgufValue* Find(absl::string_view key) const;  // nullptr where absent

  // Typed access. NotFound names the key; InvalidArgument names key, found type and wanted type.
  absl::StatusOr<uint64_t> GetUint(absl::string_view key) const;  // any integer type, >= 0
  absl::StatusOr<double> GetFloat(absl::string_view key) const;   // any number
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::string> GetString(absl::string_view key) const;

  absl::Span<const GgufTensor> tensors() const;
  const GgufTensor* FindTensor(absl::string_view name) const;      // nullptr where absent
  absl::Span<const uint8_t> Data(const GgufTensor& tensor) const;  // mapped bytes

  // Tells the kernel that these bytes will not be read again (after packing).
  void DropPages(const GgufTensor& tensor) const;
  // Asks for bytes [begin, end) of the tensor (clipped to it) to be read in the background.
  void ReadAhead(const GgufTensor& tensor, int64_t begin, int64_t end) const;

  // A stable identity of the model's content as far as headers tell: xxh3 over all shards' header
  // bytes and file sizes. Used to recognise a segment that was packed from the same file.
  uint64_t fingerprint() const;

 private:
  GgufFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_GGUF_FILE_H_
