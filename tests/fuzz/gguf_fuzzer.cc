// Any bytes as a GGUF file: parse, open, read the configuration, inspect.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "model/gguf/gguf_file.h"
#include "model/gguf/gguf_parser.h"
#include "model/inspect.h"
#include "model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dovetail::model;
  if (!ParseGguf({data, size}, "fuzz").ok()) return 0;
  // Only what the parser accepts is worth a file.
  const int fd = ::memfd_create("gguf_fuzzer", 0);
  DT_CHECK(fd >= 0);
  DT_CHECK(::write(fd, data, size) == static_cast<ssize_t>(size));
  const auto file = GgufFile::Open("/proc/self/fd/" + std::to_string(fd));
  if (file.ok()) {
    for (const GgufTensor& tensor : (*file)->tensors()) {
      const auto bytes = (*file)->Data(tensor);
      DT_CHECK(bytes.empty() || bytes.front() + bytes.back() >= 0);  // touches both ends
    }
    const auto config = LoadModelConfig(**file);
    if (config.ok()) DT_CHECK(!OpsOf(*config).empty());
    DT_CHECK(!InspectJson(**file).empty());
    DT_CHECK(InspectText(**file).ok());
  }
  ::close(fd);
  return 0;
}
