#include "model/inspect.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/weight_type.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model {
namespace {

using nlohmann::json;

constexpr size_t kShownElements = 6;
constexpr size_t kShownBytes = 60;

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string TypeName(const GgufValue& value) {
  if (value.type != GgufValueType::kArray) return std::string(GgufValueTypeName(value.type));
  return absl::StrCat("array[", GgufValueTypeName(value.element_type), "]");
}

// Control characters, and those that reorder text on a screen.
bool IsPrintable(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool reorders =
      c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
  return !control && !reorders;
}

// `text` with everything escaped that is not printable UTF-8.
std::string Printable(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    const absl::string_view character = text.substr(0, step.length);
    absl::StrAppend(&out, step.valid && IsPrintable(step.code_point) ? std::string(character)
                                                                     : absl::CHexEscape(character));
    text.remove_prefix(step.length);
  }
  return out;
}

std::string ShortText(absl::string_view text) {
  size_t end = 0;
  while (end < text.size() && end < kShownBytes) end += DecodeUtf8(text.substr(end)).length;
  return absl::StrCat("\"", Printable(text.substr(0, end)), "\"",
                      end < text.size() ? absl::StrCat("... (", text.size(), " bytes)") : "");
}

std::string ShortElement(const std::string& text) { return ShortText(text); }
std::string ShortElement(bool value) { return value ? "true" : "false"; }
std::string ShortElement(double value) { return absl::StrCat(value); }
std::string ShortElement(uint64_t value) { return absl::StrCat(value); }
std::string ShortElement(int64_t value) { return absl::StrCat(value); }

template <typename T>
std::string ShortElement(const std::vector<T>& values) {
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(kShownElements, values.size()); ++i) {
    shown.push_back(ShortElement(static_cast<T>(values[i])));
  }
  return absl::StrCat(
      "[", absl::StrJoin(shown, ", "),
      values.size() > kShownElements ? absl::StrCat(", ...] (", values.size(), " elements)") : "]");
}

std::string ShortValue(const GgufValue& value) {
  return std::visit([](const auto& v) { return ShortElement(v); }, value.value);
}

std::string ShapeText(const GgufTensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
}

std::string StringOr(const GgufFile& file, absl::string_view key, absl::string_view otherwise) {
  const absl::StatusOr<std::string> text = file.GetString(key);
  return text.ok() ? Printable(*text) : std::string(otherwise);
}

// Blocks at the end that block_count counts and that ordinary decoding leaves out.
std::string NextnLine(const GgufFile& file) {
  const GgufValue* count = file.Find(
      absl::StrCat(file.GetString("general.architecture").value_or(""), ".nextn_predict_layers"));
  const auto* blocks = count == nullptr ? nullptr : std::get_if<uint64_t>(&count->value);
  if (blocks == nullptr || *blocks == 0) return "";
  return absl::StrCat("not decoded     ", *blocks, *blocks == 1 ? " block" : " blocks",
                      " at the end, for multi-token prediction\n");
}

std::string SummaryText(const GgufFile& file) {
  struct Share {
    int tensors = 0;
    int64_t elements = 0;
    int64_t bytes = 0;
  };
  std::map<WeightType, Share> shares;
  double elements = 0;  // of all tensors; sums beyond 2^53 need no last digit
  double bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    Share& share = shares[tensor.type];
    ++share.tensors;
    share.elements += tensor.elements();
    share.bytes += tensor.bytes;
    elements += static_cast<double>(tensor.elements());
    bytes += static_cast<double>(tensor.bytes);
  }
  std::string text = absl::StrFormat(
      "file            %s\nversion         GGUF %d, %d file%s, %d bytes\narchitecture    %s\n"
      "name            %s\nparameters      %.0f\nbits per weight %.3f\nweight types",
      file.path(), file.version(), file.shard_paths().size(),
      file.shard_paths().size() == 1 ? "" : "s", file.file_bytes(),
      StringOr(file, "general.architecture", "(not stated)"),
      StringOr(file, "general.name", "(not stated)"), elements,
      elements > 0 ? bytes * 8 / elements : 0.0);
  if (shares.empty()) absl::StrAppend(&text, "    none: the file has no tensors");
  bool first = true;
  for (const auto& [type, share] : shares) {
    absl::StrAppendFormat(&text, "%s%-8s %5d tensors %15d weights %15d bytes",
                          first ? "    " : "\n                ", InfoOf(type).name, share.tensors,
                          share.elements, share.bytes);
    first = false;
  }
  return absl::StrCat(text, "\n", NextnLine(file));
}

}  // namespace

absl::StatusOr<std::string> InspectText(const GgufFile& file) {
  std::string text = SummaryText(file);
  absl::StrAppend(&text, "\nmetadata (", file.metadata().size(), ")\n");
  size_t widest = 0;
  for (const auto& [key, value] : file.metadata()) {
    widest = std::max(widest, std::min<size_t>(Printable(key).size(), kShownBytes));
  }
  for (const auto& [key, value] : file.metadata()) {
    absl::StrAppendFormat(&text, "  %-*s  %-14s  %s\n", static_cast<int>(widest), Printable(key),
                          TypeName(value), ShortValue(value));
  }
  absl::StrAppend(&text, "\ntensors (", file.tensors().size(), ")\n");
  widest = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    widest = std::max(widest, std::min<size_t>(tensor.name.size(), kShownBytes));
  }
  const bool split = file.shard_paths().size() > 1;
  for (const GgufTensor& tensor : file.tensors()) {
    absl::StrAppendFormat(
        &text, "  %-*s  %-8s %-22s %12d bytes at %s%d\n", static_cast<int>(widest),
        Printable(tensor.name), InfoOf(tensor.type).name, ShapeText(tensor), tensor.bytes,
        split ? absl::StrCat("file ", tensor.shard + 1, ", ") : "", tensor.offset);
  }
  return text;
}

// Written piece by piece: a document tree of a large vocabulary, or of a hostile file's thousands
// of keys, would cost far more than its text.
std::string InspectJson(const GgufFile& file) {
  std::string text = absl::StrCat("{\"version\": ", file.version(), ",\n\"metadata\": {");
  absl::string_view separator = "\n";
  for (const auto& [key, value] : file.metadata()) {
    const json content = std::visit([](const auto& v) { return json(v); }, value.value);
    absl::StrAppend(&text, separator, Dump(json(key)), ": {\"type\": \"", TypeName(value),
                    "\", \"value\": ", Dump(content), "}");
    separator = ",\n";
  }
  absl::StrAppend(&text, "},\n\"tensors\": [");
  separator = "\n";
  for (const GgufTensor& tensor : file.tensors()) {
    absl::StrAppend(&text, separator, "{\"name\": ", Dump(json(tensor.name)), ", \"type\": \"",
                    InfoOf(tensor.type).name, "\", \"shape\": ", ShapeText(tensor),
                    ", \"offset\": ", tensor.offset, ", \"bytes\": ", tensor.bytes, "}");
    separator = ",\n";
  }
  return absl::StrCat(text, "]}\n");
}

}  // namespace dovetail::model
