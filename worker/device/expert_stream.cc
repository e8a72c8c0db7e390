#include "worker/device/expert_stream.h"

#include <algorithm>

#include "base/check.h"
#include "model/memory_plan.h"

namespace dovetail::worker {

// Where a step ended early something may still be on its way.
ExpertStream::~ExpertStream() { device_.WaitAside(); }

ExpertStream::Parts ExpertStream::PartsOf(const ExpertLinear& linear, int64_t count) {
  const auto end_of = [](int64_t begin, int64_t bytes) { return (begin + bytes + 63) / 64 * 64; };
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  Parts parts;
  parts.bias = end_of(0, count * linear.stride);
  parts.scales =
      end_of(parts.bias, linear.first.bias == nullptr ? 0 : count * linear.bias_stride * kFloat);
  parts.end = end_of(parts.scales, linear.scales == nullptr ? 0 : count * kFloat);
  return parts;
}

ExpertStream::Matrices ExpertStream::Add(const ExpertLinear& linear, int32_t count) {
  Matrices matrices = {.host = linear, .count = count, .first = static_cast<int>(units_.size())};
  const int64_t one = PartsOf(linear, 1).end;
  matrices.per_unit = static_cast<int32_t>(std::clamp<int64_t>(buffer_bytes_ / one, 1, count));
  DT_CHECK_LE(PartsOf(linear, matrices.per_unit).end, buffer_bytes_);
  for (int32_t first = 0; first < count; first += matrices.per_unit) {
    Unit unit = {.host = linear, .count = std::min(matrices.per_unit, count - first)};
    unit.host.first.weight += first * linear.stride;
    if (linear.first.bias != nullptr) unit.host.first.bias += first * linear.bias_stride;
    if (linear.scales != nullptr) unit.host.scales += first;
    units_.push_back(unit);
  }
  return matrices;
}

void ExpertStream::Bring(int index) {
  const int side = index % kNumBuffers;
  if (holds_[side] == index) return;
  holds_[side] = index;
  const Unit& unit = units_[index];
  const ExpertLinear& host = unit.host;
  const Parts parts = PartsOf(host, unit.count);
  uint8_t* const buffer = buffers_ + side * buffer_bytes_;
  device_.BeginAside(side);
  device_.UploadAside(buffer, host.first.weight, unit.count * host.stride);
  if (host.first.bias != nullptr) {
    device_.UploadAside(buffer + parts.bias, host.first.bias,
                        unit.count * host.bias_stride * static_cast<int64_t>(sizeof(float)));
  }
  if (host.scales != nullptr) {
    device_.UploadAside(buffer + parts.scales, host.scales,
                        unit.count * static_cast<int64_t>(sizeof(float)));
  }
  device_.EndAside(side);
}

ExpertLinear ExpertStream::Use(const Matrices& matrices, int32_t expert) {
  const int index = matrices.first + expert / matrices.per_unit;
  Bring(index);
  if (index + 1 < static_cast<int>(units_.size())) Bring(index + 1);
  const int side = index % kNumBuffers;
  device_.AwaitAside(side);
  const Unit& unit = units_[index];
  const Parts parts = PartsOf(unit.host, unit.count);
  uint8_t* const buffer = buffers_ + side * buffer_bytes_;
  ExpertLinear there = unit.host;
  there.first.weight = buffer;
  if (there.first.bias != nullptr) {
    there.first.bias = reinterpret_cast<const float*>(buffer + parts.bias);
  }
  if (there.scales != nullptr) {
    there.scales = reinterpret_cast<const float*>(buffer + parts.scales);
  }
  return there;
}

void ExpertStream::Release(const Matrices& matrices, int32_t expert) {
  const int side = (matrices.first + expert / matrices.per_unit) % kNumBuffers;
  device_.ReleaseAside(side);
  holds_[side] = -1;
}

}  // namespace dovetail::worker
