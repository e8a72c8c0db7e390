#include <bit>
#include <cmath>
#include <limits>

#include "kernels/exp_constants.h"
#include "kernels/gated_constants.h"
#include "kernels/quant/format.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {
namespace {

template <typename Op>
void ForGated(const GatedArgs& args, int64_t begin, int64_t end, const Op& op) {
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = args.gate + row * args.in_stride;
    const float* up = args.up + row * args.in_stride;
    float* y = args.y + row * args.y_stride;
    for (int i = 0; i < args.cols; ++i) y[i] = op(gate[i], up[i]);
  }
}

}  // namespace

float Exp(float x) {
  using namespace exp_constants;
  if (std::isnan(x)) return x;
  x = kHighest < x ? kHighest : x;
  x = kLowest > x ? kLowest : x;
  const float t = std::fma(x, kLog2E, kRound);
  const float n = t - kRound;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = kC6;
  p = std::fma(p, r, kC5);
  p = std::fma(p, r, kC4);
  p = std::fma(p, r, kC3);
  p = std::fma(p, r, kC2);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  const int32_t power = std::bit_cast<int32_t>(t) - kRoundBits;
  const int32_t first = power >> 1;
  const int32_t second = power - first;
  const float scale1 = std::bit_cast<float>((first + 127) << 23);
  const float scale2 = std::bit_cast<float>((second + 127) << 23);
  return p * scale1 * scale2;
}

float TreeSum(float* partial, int lanes) {
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  }
  return partial[0];
}

void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* y = args.y + row * args.y_stride;
    float partial[32] = {};
    for (int i = 0; i < args.cols; ++i) partial[i % 32] = std::fma(x[i], x[i], partial[i % 32]);
    const float mean = TreeSum(partial, 32) / static_cast<float>(args.cols);
    const float inverse = 1.0f / std::sqrt(mean + args.eps);
    for (int i = 0; i < args.cols; ++i) {
      const float normed = x[i] * inverse * args.weight[i];
      y[i] = args.accumulate ? y[i] + normed : normed;
    }
  }
}

void SiluMul(const GatedArgs& args, int64_t begin, int64_t end) {
  ForGated(args, begin, end, [](float g, float u) { return g / (1.0f + Exp(-g)) * u; });
}

void GeluMul(const GatedArgs& args, int64_t begin, int64_t end) {
  using namespace gated_constants;
  ForGated(args, begin, end, [](float g, float u) {
    const float t = std::fma(kGeluC1, g * g, kGeluC0) * g;
    return g / (1.0f + Exp(-t)) * u;
  });
}

void SwigluOai(const GatedArgs& args, int64_t begin, int64_t end) {
  using namespace gated_constants;
  ForGated(args, begin, end, [](float g, float u) {
    g = kOaiLimit < g ? kOaiLimit : g;
    u = kOaiLimit < u ? kOaiLimit : u;
    u = -kOaiLimit > u ? -kOaiLimit : u;
    return g / (1.0f + Exp(-kOaiAlpha * g)) * (u + 1.0f);
  });
}

void Sigmoid(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = 1.0f / (1.0f + Exp(-x[i]));
}

void Combine(const CombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int i = 0; i < args.cols; ++i) {
      float acc = 0.0f;
      for (int64_t slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
        acc = std::fma(args.weights[slot], args.y[args.sources[slot] * args.y_stride + i], acc);
      }
      args.x[row * args.x_stride + i] += acc;
    }
  }
}

void Embedding(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    DequantizeRow(args.type, args.table + args.tokens[row] * args.row_bytes, args.cols,
                  args.y + row * args.y_stride);
    if (args.scale == 1.0f) continue;
    for (int i = 0; i < args.cols; ++i) args.y[row * args.y_stride + i] *= args.scale;
  }
}

float Softmax(const SoftmaxArgs& args) {
  float max = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < args.cols; ++i) max = args.x[i] > max ? args.x[i] : max;
  float partial[32] = {};
  for (int i = 0; i < args.cols; ++i) {
    args.p[i] = Exp((args.x[i] - max) * args.inv_temperature);
    partial[i % 32] += args.p[i];
  }
  return TreeSum(partial, 32);
}

int32_t ArgMax(const float* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isnan(x[i])) return -1;
    if (x[i] > x[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

bool AllFinite(const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) return false;
  }
  return true;
}

uint64_t ReadStream(const uint8_t* data, int64_t bytes) {
  uint64_t sum = 0;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, data + i, sizeof(word));
    sum ^= word;
  }
  return sum;
}

}  // namespace dovetail::kernels::ref
