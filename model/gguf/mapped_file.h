// MappedFile: a regular file, mapped read-only.
//
// Immutable, so any thread may read it. Owned by the GgufFile that opened it. If somebody truncates
// the file while it is mapped, reading beyond the new end is fatal (SIGBUS), as for every mapped
// file.
#ifndef DOVETAIL_MODEL_GGUF_MAPPED_FILE_H_
#define DOVETAIL_MODEL_GGUF_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace dovetail::model {

class MappedFile {
 public:
  // NotFound, PermissionDenied or InvalidArgument (empty, not a regular file), each with the path.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }

  // Gives the pages that hold bytes [begin, end) back; reading them again is allowed, and slow.
  void DropPages(uint64_t begin, uint64_t end) const;
  // Asks for bytes [begin, end) (clipped) to be read in the background.
  void ReadAhead(uint64_t begin, uint64_t end) const;

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* data_;
  size_t size_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_GGUF_MAPPED_FILE_H_
