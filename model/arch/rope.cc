#include "model/arch/rope.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/gguf/gguf_parser.h"

namespace dovetail::model {
namespace {

constexpr double kMaxFactor = 1e6;

// The dimension that turns `rotations` times over the original context (YaRN, section 3.2).
double CorrectionDim(double rotations, int32_t rope_dim, double base, double original_context) {
  constexpr double kPi = 3.14159265358979323846;
  return rope_dim * std::log(original_context / (rotations * 2 * kPi)) / (2 * std::log(base));
}

// Per pair, how much of the unscaled frequency stays: 1 for fast pairs, 0 for slow ones.
std::vector<double> YarnKeep(double base, int32_t rope_dim, const RopeScaling& scaling) {
  const double original = scaling.original_context_length;
  double low = CorrectionDim(scaling.beta_fast, rope_dim, base, original);
  double high = CorrectionDim(scaling.beta_slow, rope_dim, base, original);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope_dim - 1.0);
  const double width = low == high ? 0.001 : high - low;
  std::vector<double> keep(rope_dim / 2);
  for (size_t i = 0; i < keep.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
    keep[i] = (1.0 - ramp) * scaling.extrapolation_factor;
  }
  return keep;
}

void ReadYarn(MetadataReader& reader, int32_t context_length, RopeScaling* scaling) {
  scaling->original_context_length =
      reader.Number("rope.scaling.original_context_length", 1, 1e9, context_length);
  // A negative value is llama.cpp's way to say "not given".
  const double extrapolation = reader.Number("rope.scaling.yarn_ext_factor", -1, 1, 1.0);
  scaling->extrapolation_factor = extrapolation < 0 ? 1.0 : extrapolation;
  scaling->beta_fast = reader.Number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0);
  scaling->beta_slow = reader.Number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0);
  if (scaling->beta_slow > scaling->beta_fast) {
    reader.AddProblem("rope.scaling.yarn_beta_slow", "is larger than yarn_beta_fast");
  }
  const double usual = YarnMagnitude(scaling->factor, 0.1);
  scaling->attention_factor = reader.Number("rope.scaling.yarn_attn_factor", 1e-3, 1e3, usual) *
                              reader.Number("rope.scaling.attn_factor", 1e-3, 1e3, 1.0);
}

}  // namespace

double YarnMagnitude(double factor, double multiplier) {
  return factor <= 1 ? 1.0 : multiplier * std::log(factor) + 1.0;
}

RopeScaling ReadRopeScaling(MetadataReader& reader, int32_t context_length) {
  RopeScaling scaling;
  const double old_factor = reader.Number("rope.scale_linear", 0, kMaxFactor, 0.0);
  const double factor = reader.Number("rope.scaling.factor", 0, kMaxFactor, old_factor);
  scaling.factor = factor == 0.0 ? 1.0 : factor;
  // Files from before rope.scaling.type scale linearly by whatever factor they give.
  const std::string type = reader.Text("rope.scaling.type", "linear");
  if (type == "yarn") {
    scaling.kind = RopeScaling::Kind::kYarn;
    ReadYarn(reader, context_length, &scaling);
  } else if (type == "linear") {
    scaling.kind = scaling.factor == 1.0 ? RopeScaling::Kind::kNone : RopeScaling::Kind::kLinear;
  } else if (type != "none") {
    reader.AddProblem("rope.scaling.type", absl::StrCat(QuoteName(type),
                                                        " is not supported; "
                                                        "expected none, linear or yarn"));
  }
  return scaling;
}

std::vector<float> RopeInvFreq(double base, int32_t rope_dim, absl::Span<const double> factors,
                               const RopeScaling& scaling) {
  DT_CHECK(factors.empty() || factors.size() == static_cast<size_t>(rope_dim / 2));
  const bool yarn = scaling.kind == RopeScaling::Kind::kYarn;
  const std::vector<double> keep = yarn ? YarnKeep(base, rope_dim, scaling) : std::vector<double>();
  std::vector<float> inv_freq(rope_dim / 2);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    double f = 1.0 / std::pow(base, 2.0 * static_cast<double>(i) / rope_dim);
    if (!factors.empty()) f /= factors[i];
    if (scaling.kind == RopeScaling::Kind::kLinear) f /= scaling.factor;
    if (yarn) f = f / scaling.factor * (1.0 - keep[i]) + f * keep[i];
    inv_freq[i] = static_cast<float>(f);
  }
  return inv_freq;
}

}  // namespace dovetail::model
