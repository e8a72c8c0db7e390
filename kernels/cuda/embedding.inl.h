// Rows of an embedding table that lies in P16, because it is the head's matrix too, dequantised: a
// thread for four elements of a row.

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
  float v[4];
  DequantizeQuad<Format>(block, at, lane, v);
  for (int i = 0; i < 4; ++i) StoreEmbedded(args, row, k + i, v[i]);
}
