#include "coordinator/placement/override_tensor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/yaml_reader.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kFlag = "--override-tensor";
constexpr int kMostGpus = 1024;

// As a shell would: quotes go, what is between them stays together.
std::string Unquote(absl::string_view text) {
  std::string out;
  char quote = '\0';
  for (char c : text) {
    if (quote == '\0' && (c == '"' || c == '\'')) {
      quote = c;
    } else if (c == quote) {
      quote = '\0';
    } else {
      out.push_back(c);
    }
  }
  return out;
}

// llama.cpp parts at every comma, also within a pattern; a comma in {1,2} or [a,b] cannot be meant
// as an end.
std::vector<std::string> SplitEntries(absl::string_view text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (char c : text) {
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && depth > 0) --depth;
    if (c == ',' && depth == 0) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

// "cpu", "cuda:1", or what is wrong.
absl::StatusOr<std::string> DeviceOfBuffer(absl::string_view buffer) {
  if (buffer == "CPU" || absl::StartsWith(buffer, "CPU_") || buffer == "CUDA_Host") return "cpu";
  absl::string_view number = buffer;
  int index = 0;
  if (absl::ConsumePrefix(&number, "CUDA") && absl::SimpleAtoi(number, &index) && index >= 0 &&
      index < kMostGpus) {
    return absl::StrCat("cuda:", index);
  }
  const std::string shown = Quoted(MakeScalar(buffer));
  for (absl::string_view other : {"RPC", "Vulkan", "Metal", "ROCm", "SYCL", "HIP", "CANN"}) {
    if (absl::StartsWith(buffer, other)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there are workers for CPUs and NVIDIA GPUs alone, not for the buffer ", shown));
    }
  }
  absl::string_view gpu = buffer;
  if (absl::ConsumePrefix(&gpu, "GPU") && absl::SimpleAtoi(gpu, &index)) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown buffer ", shown, "; did you mean `CUDA", index, "`?"));
  }
  if (absl::StartsWith(buffer, "$")) {
    return absl::InvalidArgumentError(
        absl::StrCat(shown, " is a variable of a shell, which has no value here"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown buffer ", shown, "; known: CPU, CUDA0, CUDA1, ..."));
}

// "[0-10]" is one character, 0 or 1: probably a range of numbers was meant.
bool HasNumberRange(absl::string_view pattern) {
  for (size_t open = pattern.find('['); open != absl::string_view::npos;
       open = pattern.find('[', open + 1)) {
    const absl::string_view inner = pattern.substr(open + 1, pattern.find(']', open) - open - 1);
    const size_t dash = inner.find('-');
    if (dash == absl::string_view::npos) continue;
    const auto digits = [](absl::string_view text) {
      return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
    };
    const absl::string_view before = inner.substr(0, dash), after = inner.substr(dash + 1);
    if (digits(before) && digits(after) && before.size() + after.size() > 2) return true;
  }
  return false;
}

class Parser {
 public:
  explicit Parser(TensorOverrides* out) : out_(*out) {}

  void Add(absl::string_view text) {
    const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
    const size_t equals = trimmed.find('=');
    if (equals == absl::string_view::npos || equals == 0) {
      return Report("bad-override", Severity::kError,
                    absl::StrCat(Quoted(MakeScalar(trimmed)),
                                 " is not PATTERN=BUFFER, such as "
                                 "exps=CPU"));
    }
    TensorOverride entry;
    entry.pattern = std::string(trimmed.substr(0, equals));
    const absl::StatusOr<std::string> device =
        DeviceOfBuffer(absl::StripAsciiWhitespace(trimmed.substr(equals + 1)));
    if (!device.ok()) return Report("bad-override", Severity::kError, Of(entry, device.status()));
    entry.device = *device;
    absl::StatusOr<BoundedRegex> regex =
        BoundedRegex::Compile(entry.pattern, RegexSyntax::kEcmaScript);
    if (!regex.ok()) return Report("bad-regex", Severity::kError, Of(entry, regex.status()));
    entry.regex = std::make_shared<const BoundedRegex>(*std::move(regex));
    CheckOdd(entry);
    out_.entries.push_back(std::move(entry));
  }

 private:
  static std::string Of(const TensorOverride& entry, const absl::Status& status) {
    return absl::StrCat(Quoted(MakeScalar(entry.pattern)), ": ", status.message());
  }

  void CheckOdd(const TensorOverride& entry) {
    if (HasNumberRange(entry.pattern)) {
      Report("odd-pattern", Severity::kWarning,
             absl::StrCat(Quoted(MakeScalar(entry.pattern)),
                          ": a range in [ ] is of single "
                          "characters; layers 0 to 10 are `([0-9]|10)`"));
    }
    if (absl::StrContains(entry.pattern, ' ')) {
      Report("odd-pattern", Severity::kWarning,
             absl::StrCat(Quoted(MakeScalar(entry.pattern)),
                          ": a space is part of the pattern, and no tensor's name has one"));
    }
  }

  void Report(absl::string_view code, Severity severity, std::string message) {
    out_.diagnostics.push_back(
        {std::string(code), severity, std::string(kFlag), 0, 0, std::move(message)});
  }

  TensorOverrides& out_;
};

}  // namespace

const TensorOverride* TensorOverrides::Find(absl::string_view tensor) const {
  for (const TensorOverride& entry : entries) {
    if (entry.regex->Search(tensor) == BoundedRegex::Result::kMatch) return &entry;
  }
  return nullptr;
}

TensorOverrides ParseTensorOverrides(absl::Span<const std::string> arguments) {
  TensorOverrides out;
  Parser parser(&out);
  for (const std::string& argument : arguments) {
    const std::vector<std::string> parts = SplitEntries(Unquote(argument));
    for (size_t i = 0; i < parts.size(); ++i) {
      // A comma at the end begins nothing.
      const bool is_last = i + 1 == parts.size() && parts.size() > 1;
      if (is_last && absl::StripAsciiWhitespace(parts[i]).empty()) continue;
      parser.Add(parts[i]);
    }
  }
  return out;
}

}  // namespace dovetail::coordinator
