// HeaderReader: reads the parts of a GGUF header and says, where one is wrong, in which file, at
// which byte and inside what.
//
// Never reads outside the bytes, and allocates no more than a small multiple of what it has read.
// Used by one parser on one thread; borrows bytes and name.
#ifndef DOVETAIL_MODEL_GGUF_HEADER_READER_H_
#define DOVETAIL_MODEL_GGUF_HEADER_READER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf/byte_reader.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

class HeaderReader {
 public:
  HeaderReader(absl::Span<const uint8_t> file, const std::string& name);

  // What is being read, for messages: "metadata entry 3 of 20".
  void set_place(std::string place) { place_ = std::move(place); }

  template <typename T>
  absl::Status Read(T* value) {
    return reader_.Read(value) ? absl::OkStatus() : Truncated();
  }
  absl::Status ReadName(std::string* name);  // a key or a tensor's name
  absl::Status ReadValue(GgufValue* value);  // its type, then itself

  absl::Status Error(uint64_t offset, absl::string_view what) const;
  ByteReader& bytes() { return reader_; }
  uint64_t offset() const { return reader_.offset(); }
  uint64_t left() const { return reader_.left(); }
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  absl::Status Truncated() const;
  absl::Status ReadString(uint64_t max_bytes, std::string* text);
  absl::Status ReadScalar(GgufValueType type, GgufValue* out);
  absl::Status ReadArray(GgufValue* out);
  absl::Status ReadElements(uint64_t count, GgufValue* out);
  absl::Status ReadBools(uint64_t count, GgufValue* out);
  absl::Status ReadStrings(uint64_t count, GgufValue* out);
  template <typename Stored, typename Wide>
  absl::Status ReadNumber(GgufValue* out);
  template <typename Stored, typename Wide>
  absl::Status ReadNumbers(uint64_t count, GgufValue* out);

  const std::string& name_;
  const uint64_t file_bytes_;
  ByteReader reader_;
  std::string place_ = "the header";
  uint64_t num_array_elements_ = 0;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_HEADER_READER_H_
