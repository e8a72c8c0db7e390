// Any bytes as a configuration file, as a device's description and as a Hugging Face configuration:
// every outcome but a crash is fine. The first byte says which.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/config.h"
#include "coordinator/placement/device_spec.h"
#include "model/hf_config.h"
#include "model/model_config.h"

namespace {

using namespace dovetail;

void TryConfig(const std::string& text) {
  const int fd = memfd_create("config", 0);
  DT_CHECK(fd >= 0);
  DT_CHECK_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  const auto config = coordinator::LoadConfig(absl::StrCat("/proc/self/fd/", fd), {});
  close(fd);
  if (!config.ok()) {
    DT_CHECK(!config.status().message().empty());
    return;
  }
  DT_CHECK(!config->workers.empty());
  DT_CHECK(config->chunk_size > 0 && config->max_batch_size > 0);
}

void TryDevice(const std::string& text) {
  const auto device = coordinator::ParseDeviceSpec(text);
  if (!device.ok()) return;
  DT_CHECK(device->budget() > 0);
  DT_CHECK(coordinator::IsDevicePattern(device->name) && !coordinator::IsGroup(device->name));
}

void TryModelConfig(const std::string& text) {
  const auto file = model::HeaderFromHfConfig(text, "fuzz", WeightType::kQ8_0);
  if (!file.ok()) return;
  (void)model::LoadModelConfig(**file);  // may refuse it, too
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      TryConfig(text);
      break;
    case 1:
      TryDevice(text);
      break;
    default:
      TryModelConfig(text);
  }
  return 0;
}
