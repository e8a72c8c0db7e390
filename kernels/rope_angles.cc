// Sine and cosine in plain double arithmetic: no libm, no fma, so that every machine gives the same
// bits.
#include <cstdint>

#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
// pi / 2 in pieces of 28, 28 and 53 bits: n * kPart1 and n * kPart2 are exact for n below 2^25.
constexpr double kPart1 = 0x1.921fb54p+0;
constexpr double kPart2 = 0x1.10b461p-30;
constexpr double kPart3 = 0x1.a62633145c06ep-58;

constexpr double kRound = 0x1.8p+52;

// Taylor series on [-pi/4, pi/4], relative error below 3e-14; `tail` is the part of the angle that
// did not fit in x.
double SinPolynomial(double x, double tail) {
  const double z = x * x;
  double p = 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return x + (x * z * p + tail);
}

double CosPolynomial(double x, double tail) {
  const double z = x * x;
  double p = -1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  return 1.0 - (0.5 * z - (z * z * p - x * tail));
}

void SinCos(double angle, double* sine, double* cosine) {
  const double n = angle * kTwoOverPi + kRound - kRound;
  const double high = angle - n * kPart1;  // exact
  const double step = n * kPart2;
  const double x0 = high - step;
  const double lost = (high - x0) - step;
  const double last = lost - n * kPart3;
  const double x = x0 + last;
  const double tail = (x0 - x) + last;
  const double s = SinPolynomial(x, tail);
  const double c = CosPolynomial(x, tail);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      *sine = s;
      *cosine = c;
      break;
    case 1:
      *sine = c;
      *cosine = -s;
      break;
    case 2:
      *sine = -s;
      *cosine = -c;
      break;
    default:
      *sine = -c;
      *cosine = s;
      break;
  }
}

}  // namespace

void RopeAngles(int32_t position, const float* inv_freq, int32_t n, float factor, float* cos_sin) {
  for (int32_t i = 0; i < n; ++i) {
    double sine, cosine;
    SinCos(static_cast<double>(position) * static_cast<double>(inv_freq[i]), &sine, &cosine);
    cos_sin[i] = static_cast<float>(cosine * static_cast<double>(factor));
    cos_sin[n + i] = static_cast<float>(sine * static_cast<double>(factor));
  }
}

}  // namespace dovetail::kernels
