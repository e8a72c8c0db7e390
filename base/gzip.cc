#include "base/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "base/status_macros.h"

namespace dovetail {
namespace {

constexpr absl::string_view kMagic = "\x1f\x8b";
constexpr int kGzipWindow = 15 + 16;  // zlib: the largest window, with gzip's header
constexpr size_t kPieceBytes = 64 << 10;

// Ends the stream whatever way the function is left.
struct Inflater {
  z_stream stream = {};
  bool ready = inflateInit2(&stream, kGzipWindow) == Z_OK;
  ~Inflater() {
    if (ready) inflateEnd(&stream);
  }
};

}  // namespace

absl::StatusOr<std::string> Gunzip(std::string data, uint64_t max_bytes, absl::string_view name) {
  if (data.compare(0, kMagic.size(), kMagic.data(), kMagic.size()) != 0) return data;
  Inflater inflater;
  if (!inflater.ready) return absl::ResourceExhaustedError(absl::StrCat(name, ": no memory"));
  z_stream& stream = inflater.stream;
  stream.next_in = reinterpret_cast<Bytef*>(data.data());
  stream.avail_in = static_cast<uInt>(data.size());
  std::string text;
  int rc = Z_OK;
  while (rc != Z_STREAM_END) {
    const size_t done = text.size();
    text.resize(done + kPieceBytes);
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + done);
    stream.avail_out = kPieceBytes;
    rc = inflate(&stream, Z_NO_FLUSH);
    text.resize(text.size() - stream.avail_out);
    if (text.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(name, ": has more than ", max_bytes, " bytes once unpacked"));
    }
    if (rc != Z_OK && rc != Z_STREAM_END) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": is damaged or cut off (gzip)"));
    }
  }
  return text;
}

absl::StatusOr<std::string> ReadMaybeGzipped(const std::string& path, uint64_t max_bytes) {
  DT_ASSIGN_OR_RETURN(std::string data, ReadFile(path, max_bytes));
  return Gunzip(std::move(data), max_bytes, path);
}

}  // namespace dovetail
