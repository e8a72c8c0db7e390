// Rows of an embedding table that lies in P16, because it is the head's matrix too, dequantised
// (kernels/quant/format.h): a thread for four elements of a row.

DT_DEVICE void StoreEmbedded(const EmbeddingArgs& args, int64_t row, int64_t k, float v) {
  args.y[row * args.y_stride + k] = args.scale == 1.0f ? v : v * args.scale;
}

template <typename Format>
DT_KERNEL void EmbeddingKernel(EmbeddingArgs args, int64_t begin, int64_t end) {
  const int64_t quads = args.cols / 4;
  const int64_t index = int64_t{BlockIndex()} * BlockThreads() + ThreadIndex();
  if (index >= (end - begin) * quads) return;
  const int64_t row = begin + index / quads, k = index % quads * 4;
  const int64_t token = args.tokens[row];
  const int lane = static_cast<int>(token % kPanelRows), at = static_cast<int>(k % Format::kBlock);
  const int64_t blocks = args.cols / Format::kBlock;
  const uint8_t* block = args.table + (token / kPanelRows * blocks + k / Format::kBlock) *
                                          int64_t{Format::P16::kBytes};
  const uint32_t quad = Format::Quad(block, at / 32, at % 32 / 4, lane);
  const int sub_block = at / Format::kSubBlock;
  const float d =
      Format::D(block, lane) * static_cast<float>(Format::Scale(block, sub_block, lane));
  for (int i = 0; i < 4; ++i) {
    float v = d * static_cast<float>(static_cast<int8_t>(quad >> (8 * i)));
    if constexpr (Format::kHasMin) {
      v = v +
          Format::MinScale(block, lane) * static_cast<float>(Format::Min(block, sub_block, lane));
    }
    StoreEmbedded(args, row, k + i, v);
  }
}
