// GgufWriter: makes GGUF files for tests, right ones and wrong ones.
//
// Metadata and tensors appear in the order in which they were added. Nothing is checked: a test may
// write any lie it likes, by setting the public fields or by patching Serialize()'s bytes.
#ifndef DOVETAIL_TESTS_TESTING_GGUF_WRITER_H_
#define DOVETAIL_TESTS_TESTING_GGUF_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/weight_type.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::testing {

class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    uint32_t type_id = 0;
    std::vector<uint64_t> shape;  // ggml's order
    std::string data;
    std::optional<uint64_t> offset;  // in the data section; by default the next aligned place
  };

  uint32_t version = 3;
  uint64_t alignment = 32;                  // of the layout; the metadata key is the test's affair
  std::optional<uint64_t> claimed_tensors;  // instead of the true counts
  std::optional<uint64_t> claimed_metadata;

  void AddUint8(const std::string& key, uint8_t v) { AddScalar(key, 0, v); }
  void AddInt8(const std::string& key, int8_t v) { AddScalar(key, 1, v); }
  void AddUint16(const std::string& key, uint16_t v) { AddScalar(key, 2, v); }
  void AddInt16(const std::string& key, int16_t v) { AddScalar(key, 3, v); }
  void AddUint32(const std::string& key, uint32_t v) { AddScalar(key, 4, v); }
  void AddInt32(const std::string& key, int32_t v) { AddScalar(key, 5, v); }
  void AddFloat32(const std::string& key, float v) { AddScalar(key, 6, v); }
  void AddBool(const std::string& key, bool v) { AddScalar<uint8_t>(key, 7, v ? 1 : 0); }
  void AddUint64(const std::string& key, uint64_t v) { AddScalar(key, 10, v); }
  void AddInt64(const std::string& key, int64_t v) { AddScalar(key, 11, v); }
  void AddFloat64(const std::string& key, double v) { AddScalar(key, 12, v); }
  void AddString(const std::string& key, const std::string& v) { AddRaw(key, 8, Text(v)); }
  void AddStrings(const std::string& key, const std::vector<std::string>& v);
  void AddInt32s(const std::string& key, const std::vector<int32_t>& v) { AddArray(key, 5, v); }
  void AddUint32s(const std::string& key, const std::vector<uint32_t>& v) { AddArray(key, 4, v); }
  void AddFloat32s(const std::string& key, const std::vector<float>& v) { AddArray(key, 6, v); }
  template <typename T>
  void AddArray(const std::string& key, uint32_t element_type, const std::vector<T>& v) {
    std::string bytes = Bytes(element_type) + Bytes(static_cast<uint64_t>(v.size()));
    for (const T& element : v) bytes += Bytes(element);
    AddRaw(key, 9, bytes);
  }
  // A value given as bytes, of any type id.
  void AddRaw(const std::string& key, uint32_t type, const std::string& value);

  // `shape` in ggml's order: columns first. The reference lives until the next AddTensor.
  Tensor& AddTensor(const std::string& name, WeightType type, std::vector<uint64_t> shape,
                    std::string data);

  std::vector<Tensor>& tensors() { return tensors_; }

  std::string Serialize() const;
  void Write(const std::string& path) const;

  template <typename T>
  static std::string Bytes(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  static std::string Text(const std::string& text) {
    return Bytes(static_cast<uint64_t>(text.size())) + text;
  }

 private:
  template <typename T>
  void AddScalar(const std::string& key, uint32_t type, T value) {
    AddRaw(key, type, Bytes(value));
  }

  std::string metadata_;
  uint64_t num_metadata_ = 0;
  std::vector<Tensor> tensors_;
};

// Writes bytes as a file; aborts where that fails.
void WriteFileOrDie(const std::string& path, const std::string& bytes);

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_GGUF_WRITER_H_
