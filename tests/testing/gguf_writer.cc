#include "tests/testing/gguf_writer.h"

#include <fstream>

#include "base/check.h"

namespace dovetail::testing {

void GgufWriter::AddStrings(const std::string& key, const std::vector<std::string>& v) {
  std::string bytes = Bytes(uint32_t{8}) + Bytes(static_cast<uint64_t>(v.size()));
  for (const std::string& text : v) bytes += Text(text);
  AddRaw(key, 9, bytes);
}

void GgufWriter::AddRaw(const std::string& key, uint32_t type, const std::string& value) {
  metadata_ += Text(key) + Bytes(type) + value;
  ++num_metadata_;
}

GgufWriter::Tensor& GgufWriter::AddTensor(const std::string& name, WeightType type,
                                          std::vector<uint64_t> shape, std::string data) {
  tensors_.push_back(
      {name, static_cast<uint32_t>(type), std::move(shape), std::move(data), std::nullopt});
  return tensors_.back();
}

std::string GgufWriter::Serialize() const {
  std::string out = "GGUF" + Bytes(version) +
                    Bytes(claimed_tensors.value_or(static_cast<uint64_t>(tensors_.size()))) +
                    Bytes(claimed_metadata.value_or(num_metadata_)) + metadata_;
  const auto pad = [&](std::string* bytes) {
    bytes->resize((bytes->size() + alignment - 1) / alignment * alignment);
  };
  std::string data;
  for (const Tensor& tensor : tensors_) {
    out += Text(tensor.name) + Bytes(static_cast<uint32_t>(tensor.shape.size()));
    for (uint64_t dim : tensor.shape) out += Bytes(dim);
    out += Bytes(tensor.type_id) + Bytes(tensor.offset.value_or(data.size()));
    data += tensor.data;
    pad(&data);
  }
  if (tensors_.empty()) return out;
  pad(&out);
  return out + data;
}

void GgufWriter::Write(const std::string& path) const { WriteFileOrDie(path, Serialize()); }

void WriteFileOrDie(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  DT_CHECK(out.good());
}

}  // namespace dovetail::testing
