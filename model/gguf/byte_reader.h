// ByteReader: a cursor over the header bytes of a file, which cannot leave them.
//
// Every read returns false, and changes nothing, where too few bytes are left. Little endian.
#ifndef DOVETAIL_MODEL_GGUF_BYTE_READER_H_
#define DOVETAIL_MODEL_GGUF_BYTE_READER_H_

#include <bit>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail::model {

static_assert(std::endian::native == std::endian::little, "GGUF is read without swapping bytes");

class ByteReader {
 public:
  explicit ByteReader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  template <typename T>
  bool Read(T* value) {
    if (left() < sizeof(T)) return false;
    std::memcpy(value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return true;
  }

  bool ReadBytes(uint64_t count, absl::string_view* view) {
    if (left() < count) return false;
    *view = {reinterpret_cast<const char*>(bytes_.data()) + offset_, count};
    offset_ += count;
    return true;
  }

 private:
  absl::Span<const uint8_t> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_BYTE_READER_H_
