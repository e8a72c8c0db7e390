#include "model/row_parts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/packed_layout.h"

namespace dovetail::model {
namespace {

int64_t CeilDiv(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Whole panels of rows, and whole blocks of what the next product reads.
int64_t InnerUnit(WeightType last_type) {
  return std::max<int64_t>(kPanelRows, InfoOf(last_type).block_elements);
}

// The columns between the op's products; 0: it has no two products in a row.
int64_t InnerColumns(const ModelConfig& config, const Op& op) {
  switch (op.kind) {
    case OpKind::kMlp:
      return config.intermediate_size;
    case OpKind::kSharedExperts:
      return config.experts.shared_intermediate_size;
    case OpKind::kExperts:
      return config.experts.intermediate_size;
    default:
      return 0;
  }
}

bool IsLast(WeightRole role) {
  return role == WeightRole::kO || role == WeightRole::kDown || role == WeightRole::kExpertDown;
}

// The type of the op's last matrix.
WeightType LastType(const ModelConfig& config, const GgufFile& file, const Op& op) {
  for (const WeightSpec& spec : WeightsOf(config, op)) {
    const GgufTensor* tensor = IsLast(spec.role) ? file.FindTensor(spec.tensor) : nullptr;
    if (tensor != nullptr) return tensor->type;
  }
  return WeightType::kF32;
}

std::vector<Range> Scaled(std::vector<Range> parts, int64_t factor) {
  for (Range& part : parts) part = {part.begin * factor, part.end * factor};
  return parts;
}

}  // namespace

RowParts RowPartsOf(const ModelConfig& config, const Op& op, WeightType last_type) {
  RowParts parts;
  if (op.kind == OpKind::kLmHead) {
    parts.inner = SplitRows(config.vocab_size, kPanelRows, op.rows);
    return parts;
  }
  if (op.kind == OpKind::kAttention) {
    parts.kv_heads = SplitRows(config.num_key_value_heads, 1, op.rows);
    const int64_t sharing = config.num_attention_heads / config.num_key_value_heads;
    parts.inner = Scaled(parts.kv_heads, sharing * config.head_dim);
  } else if (const int64_t columns = InnerColumns(config, op); columns > 0) {
    parts.inner = SplitRows(columns, InnerUnit(last_type), op.rows);
  } else {
    return parts;
  }
  parts.outer = SplitRows(config.hidden_size, kPanelRows, op.rows);
  return parts;
}

RowParts RowPartsOf(const ModelConfig& config, const GgufFile& file, const Op& op) {
  return RowPartsOf(config, op, LastType(config, file, op));
}

std::string WhyNotSplit(const ModelConfig& config, const Op& op) {
  if (op.kind == OpKind::kEmbedding) return "an embedding is read, not multiplied";
  if (op.kind != OpKind::kAttention) return "";
  if (config.HasLatentAttention()) return "all heads of latent attention share one cache";
  if (config.qk_norm == QkNorm::kWholeRow) {
    return "this model normalises queries and keys of all heads together";
  }
  return "";
}

RowUnits RowUnitsOf(const ModelConfig& config, const GgufFile& file, const Op& op) {
  const int64_t panels = CeilDiv(config.hidden_size, kPanelRows);
  if (op.kind == OpKind::kLmHead) {
    return {"panels of its rows", CeilDiv(config.vocab_size, kPanelRows)};
  }
  if (op.kind == OpKind::kAttention) {
    if (config.num_key_value_heads <= panels) return {"KV heads", config.num_key_value_heads};
    return {"panels of its rows", panels};
  }
  const int64_t columns = InnerColumns(config, op);
  if (columns == 0) return {};
  const int64_t blocks = CeilDiv(columns, InnerUnit(LastType(config, file, op)));
  return {"panels of its rows", std::min(blocks, panels)};
}

absl::Status TakeRows(const ModelConfig& config, const GgufFile& file, const Op& op,
                      std::vector<WeightSpec>* specs) {
  const RowUnits units = RowUnitsOf(config, file, op);
  const std::string why = WhyNotSplit(config, op);
  if (!why.empty() || (units.count > 0 && units.count < op.rows.members)) {
    return absl::InvalidArgumentError(
        absl::StrCat(op.rows.members, " workers cannot share the rows of ", ModuleName(op), ": ",
                     why.empty() ? absl::StrCat("it has ", units.count, " ", units.name) : why));
  }
  const RowParts parts = RowPartsOf(config, file, op);
  const auto take = [&](const std::vector<Range>& of, int64_t factor, WeightSpec* spec) {
    DT_CHECK(spec->tensor_stride == 0);
    const Range own = of[op.rows.member];
    spec->tensor_stride = spec->rows;
    spec->tensor_first = own.begin * factor;
    spec->rows = own.size() * factor;
  };
  for (WeightSpec& spec : *specs) {
    switch (spec.role) {
      case WeightRole::kK:
      case WeightRole::kV:
        take(parts.kv_heads, config.head_dim, &spec);
        break;
      case WeightRole::kQ:
      case WeightRole::kGate:
      case WeightRole::kUp:
      case WeightRole::kExpertGate:
      case WeightRole::kExpertUp:
      case WeightRole::kLmHead:
        take(parts.inner, 1, &spec);
        break;
      case WeightRole::kO:
      case WeightRole::kDown:
      case WeightRole::kExpertDown:
        take(parts.outer, 1, &spec);
        break;
      default:
        break;  // with every member
    }
  }
  return absl::OkStatus();
}

KvShape KvShapeOf(const ModelConfig& config, const Op& op) {
  KvShape shape = config.kv_shape();
  if (!op.rows.whole()) {
    shape.num_heads = static_cast<int32_t>(
        SplitRows(config.num_key_value_heads, 1, op.rows)[op.rows.member].size());
  }
  return shape;
}

}  // namespace dovetail::model
