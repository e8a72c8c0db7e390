#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {

constinit const KernelTable kTable = {
    .name = "scalar",
    .isa = Isa::kScalar,
    .layout = PackedLayout::kRaw,
    .pack = Pack,
    .rms_norm = RmsNorm,
    .quantize = Quantize,
    .matmul = Matmul,
    .silu_mul = SiluMul,
    .gelu_mul = GeluMul,
    .swiglu_oai = SwigluOai,
    .sigmoid = Sigmoid,
    .combine = Combine,
    .rope = Rope,
    .kv_append = KvAppend,
    .attention = Attention,
    .attention_parts = AttentionParts,
    .attention_merge = AttentionMerge,
    .embedding = Embedding,
    .packed_embedding = Embedding,
    .softmax = Softmax,
    .argmax = ArgMax,
    .all_finite = AllFinite,
    .read_stream = ReadStream,
};

}  // namespace dovetail::kernels::ref
