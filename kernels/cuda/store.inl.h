// Where a finished sum goes.

DT_DEVICE void StoreProduct(const MatmulArgs& args, int64_t token, int64_t n, float sum) {
  float* y = args.y + token * args.y_stride + n;
  sum = sum * args.scale;
  if (args.bias != nullptr) sum = sum + args.bias[n];
  *y = args.accumulate ? *y + sum : sum;
}
