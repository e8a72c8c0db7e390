#include "kernels/in_place.h"

#include <algorithm>

#include "base/packed_layout.h"
#include "base/weight_type.h"

namespace dovetail::kernels {

void MatmulInPlace(const KernelTable& table, const MatmulArgs& args, int64_t begin, int64_t end,
                   uint8_t* scratch) {
  // Tables read these as they are stored.
  if (table.layout == PackedLayout::kRaw || IsFloat(args.type)) {
    return table.matmul(args, begin, end);
  }
  const int64_t row_bytes = StoredBytes(args.type, args.k);
  for (int64_t panel = begin; panel < end; panel += kInPlacePanels) {
    const int64_t panels = std::min<int64_t>(kInPlacePanels, end - panel);
    const int64_t row = panel * kPanelRows;
    const int64_t rows = std::min<int64_t>(panels * kPanelRows, args.n - row);
    table.pack(args.type, args.w + row * row_bytes, rows, args.k, 0, rows, scratch);
    MatmulArgs part = args;
    part.w = scratch;
    part.n = static_cast<int32_t>(rows);
    part.y += row;
    if (part.bias != nullptr) part.bias += row;
    table.matmul(part, 0, panels);
  }
}

}  // namespace dovetail::kernels
