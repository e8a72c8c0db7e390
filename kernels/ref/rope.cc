#include <cmath>

#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {

void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int pairs = args.rope_dim / 2;
  for (int64_t row = begin; row < end; ++row) {
    const float* cosines = args.cos_sin + row * args.rope_dim;
    const float* sines = cosines + pairs;
    for (int head = 0; head < args.num_heads; ++head) {
      float* x = args.x + row * args.x_stride + int64_t{head} * args.head_dim;
      for (int i = 0; i < pairs; ++i) {
        float* first = args.interleaved ? x + 2 * i : x + i;
        float* second = args.interleaved ? first + 1 : first + pairs;
        const float x0 = *first, x1 = *second;
        *first = std::fma(x0, cosines[i], -(x1 * sines[i]));
        *second = std::fma(x0, sines[i], x1 * cosines[i]);
      }
    }
  }
}

}  // namespace dovetail::kernels::ref
