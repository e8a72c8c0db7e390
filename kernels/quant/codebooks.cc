#include "kernels/quant/codebooks.h"

#include "kernels/quant/codebooks_expand.h"

namespace dovetail::kernels {

constinit const Codebooks kCodebooks = ExpandCodebooks();

}  // namespace dovetail::kernels
