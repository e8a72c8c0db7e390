// Which rows and which matrix a block of a product has, and where a finished sum goes.

DT_DEVICE void SelectMatrix(DeviceMatmulArgs* args, int64_t matrix) {
  args->w += matrix * args->w_stride;
  if (args->bias != nullptr) args->bias += matrix * args->bias_stride;
  if (args->scales != nullptr) args->scale = args->scales[matrix];
}

// From here on row 0 of the activations is the one that is `rows`, in f32 `f32_rows`, further on.
DT_DEVICE void SkipRows(Activations* x, int64_t rows, int64_t f32_rows) {
  x->f32 += f32_rows * x->f32_stride;
  if (x->block == 0) return;
  x->q += rows * x->q_stride;
  x->d += rows * x->d_stride;
  x->bsum += rows * x->bsum_stride;
}

// The activations of one head: rows of a head are `heads` vectors apart.
DT_DEVICE void SelectHead(Activations* x, int head, int heads) {
  x->f32 += head * (x->f32_stride / heads);
  if (x->block == 0) return;
  x->q += head * (x->q_stride / heads);
  x->d += head * (x->d_stride / heads);
  x->bsum += head * (x->bsum_stride / heads);
}

// Narrows `args` to that of its matrices beside each other of which block `block` is, where each
// has whole blocks of `panels` panels; returns which of that matrix's blocks it is.
DT_DEVICE int64_t SelectBeside(DeviceMatmulArgs* args, int64_t block, int panels) {
  DT_UNROLL
  for (int i = 0; i < DeviceMatmulArgs::kMostBeside; ++i) {
    if (i >= args->num_beside) break;
    const int64_t own = CeilDiv(args->n, int64_t{panels} * kPanelRows);
    if (block < own) break;
    block -= own;
    const MatmulBeside& next = args->beside[i];
    args->w = next.w;
    args->n = next.n;
    args->y = next.y;
    args->y_stride = next.y_stride;
    args->bias = next.bias;
    args->scale = next.scale;
  }
  return block;
}

// Narrows `args` to the group or head of this block; *tile: which tile of its rows. False: the
// block has nothing to do. The same for all threads of a block.
DT_DEVICE bool SelectRows(DeviceMatmulArgs* args, int* tile) {
  const int set = BlockIndexY() / args->tiles;
  *tile = BlockIndexY() % args->tiles;
  if (args->groups != nullptr) {
    if (set >= *args->num_groups) return false;
    const MatmulGroup group = args->groups[set];
    const int matrix = group.matrix - args->first_matrix;
    if (matrix < 0 || matrix >= args->num_matrices) return false;
    SelectMatrix(args, matrix);
    SkipRows(&args->x, group.first_row, args->f32_from_y_row ? group.y_row : group.first_row);
    args->y += (args->to_y_row ? group.y_row : group.first_row) * args->y_stride;
    args->rows = group.rows;
  } else if (args->heads > 1) {
    SelectMatrix(args, set);
    SelectHead(&args->x, set, args->heads);
    args->y += set * args->y_head_stride;
  }
  return true;
}

DT_DEVICE void StoreProduct(const DeviceMatmulArgs& args, int64_t token, int64_t n, float sum) {
  float* y = args.y + token * args.y_stride + n;
  sum = sum * args.scale;
  if (args.bias != nullptr) sum = sum + args.bias[n];
  if (args.accumulate) sum = *y + sum;
  *y = sum;
  const bool finite = (BitsOf(sum) & 0x7fffffffu) < 0x7f800000u;
  if (!finite && args.not_finite != nullptr) RaiseFlag(args.not_finite);
}
