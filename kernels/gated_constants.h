// Constants of the gated activations, shared by the reference and the vector kernels.
#ifndef DOVETAIL_KERNELS_GATED_CONSTANTS_H_
#define DOVETAIL_KERNELS_GATED_CONSTANTS_H_

namespace dovetail::kernels::gated_constants {

// GELU's tanh form as x / (1 + exp(-t)), t = x (c0 + c1 x^2).
constexpr float kGeluC0 = 1.5957691216057308f;   // 2 sqrt(2 / pi)
constexpr float kGeluC1 = 0.07135481282553502f;  // 0.044715 c0

// The published constants of gpt-oss.
constexpr float kOaiAlpha = 1.702f;
constexpr float kOaiLimit = 7.0f;

}  // namespace dovetail::kernels::gated_constants

#endif  // DOVETAIL_KERNELS_GATED_CONSTANTS_H_
