// The pre-tokenizers by name. The patterns are those of the models' published tokenizer.json files;
// the names and which names share patterns are GGUF's.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/tokenizer/pre_tokenizer.h"

namespace dovetail::model {
namespace {

#define DT_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"

constexpr absl::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr absl::string_view kDigit = R"(\p{N})";
constexpr absl::string_view kDigits = R"(\p{N}+)";
constexpr absl::string_view kThreeDigits = R"(\p{N}{1,3})";

// cl100k and its descendants differ in how many digits stay together.
constexpr absl::string_view kLlama3 = DT_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2 = DT_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kMiniCpm5 = DT_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen35 = DT_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+)"
    R"(|\s+(?!\S)|\s+)";
constexpr absl::string_view kSeedCoder = DT_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kBailingMoe =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";

// o200k: words split where upper case follows lower case.
#define DT_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define DT_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define DT_CASED_WORDS(upper, lower, suffix)                                                  \
  R"([^\r\n\p{L}\p{N}]?)" upper "*" lower "+" suffix R"(|[^\r\n\p{L}\p{N}]?)" upper "+" lower \
  "*" suffix
constexpr absl::string_view kGpt4o = DT_CASED_WORDS(
    DT_UPPER, DT_LOWER,
    DT_CONTRACTIONS "?") R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kTekken = DT_CASED_WORDS(
    DT_UPPER, DT_LOWER, "") R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The published pattern subtracts Han from DT_UPPER and DT_LOWER, which PCRE2 says as a complement.
#define DT_NOT_HAN R"(\p{N}\p{P}\p{S}\p{Z}\p{C}\p{sc:Han}])"
constexpr absl::string_view kKimiK2 = R"(\p{sc:Han}+|)" DT_CASED_WORDS(
    R"([^\p{Ll})" DT_NOT_HAN, R"([^\p{Lu}\p{Lt})" DT_NOT_HAN,
    DT_CONTRACTIONS "?") R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr absl::string_view kDeepseekCjk =
    R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr absl::string_view kDeepseekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Cased letters as of the tokenizer's day, by code point.
constexpr absl::string_view kDeepseekLlmLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF})"
    R"(\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F})"
    R"(\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481})"
    R"(\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD})"
    R"(\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45})"
    R"(\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D})"
    R"(\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06})"
    R"(\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr absl::string_view kDeepseekLlmPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr absl::string_view kDeepseekLlmCjk =
    R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

constexpr absl::string_view kAfmoeAsian =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF})"
    R"(\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF})"
    R"(\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+)";
constexpr absl::string_view kBloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+)";
constexpr absl::string_view kFalconPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr absl::string_view kDefaultPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr absl::string_view kThreeAsciiDigits = "[0-9][0-9][0-9]";
constexpr absl::string_view kLines = R"([^\n]+|[\n]+)";

std::vector<PreTokenizerSpec> MakeTable() {
  const std::vector<absl::string_view> digit_gpt2 = {kDigit, kGpt2};
  const std::vector<absl::string_view> deepseek_v3 = {kThreeDigits, kDeepseekCjk, kDeepseekV3};
  return {
      {"default", {kDefaultPunctuation, kGpt2, kDigits, kThreeAsciiDigits}},
      // Llama 3 and those who took its tokenizer
      {"llama-bpe", {kLlama3}, /*ignore_merges=*/true, /*add_bos=*/true},
      {"llama3", {kLlama3}, true, true},
      {"llama-v3", {kLlama3}, true, true},
      {"falcon3", {kLlama3}, true, true},
      {"falcon-h1", {kLlama3}, true, true},
      {"pixtral", {kLlama3}, true, true},
      {"midm-2.0", {kLlama3}, true, true},
      {"lfm2", {kLlama3}, true, true},
      {"dbrx", {kLlama3}},
      {"smaug-bpe", {kLlama3}},
      {"glm4", {kLlama3}},
      {"chatglm-bpe", {kLlama3}},
      // GPT-2
      {"gpt-2", {kGpt2}},
      {"phi-2", {kGpt2}},
      {"mpt", {kGpt2}},
      {"olmo", {kGpt2}},
      {"jais", {kGpt2}},
      {"gigachat", {kGpt2}},
      {"a.x-4.0", {kGpt2}},
      {"mellum", {kGpt2}},
      {"trillion", {kGpt2}},
      {"exaone4", {kGpt2}},
      {"granite-docling", {kGpt2}},
      // GPT-2 with single digits
      {"smollm", digit_gpt2},
      {"starcoder", digit_gpt2},
      {"refact", digit_gpt2},
      {"command-r", digit_gpt2},
      {"codeshell", digit_gpt2},
      {"exaone", digit_gpt2},
      {"minerva-7b", digit_gpt2},
      {"mellum2", digit_gpt2},
      // Qwen2
      {"qwen2", {kQwen2}, false, false, /*nfc=*/true},
      {"deepseek-r1-qwen", {kQwen2}},
      {"megrez", {kQwen2}},
      {"stablelm2", {kQwen2}},
      {"hunyuan", {kQwen2}},
      {"solar-open", {kQwen2}},
      {"grok-2", {kQwen2}},
      {"qwen35", {kQwen35}, false, false, /*nfc=*/true},
      {"seed-coder", {kSeedCoder}},
      {"bailingmoe", {kBailingMoe}},
      {"bailingmoe2", {kBailingMoe}},
      {"llada-moe", {kBailingMoe}},
      {"laguna", {kLines, kQwen2}},
      {"minicpm5", {kThreeDigits, kMiniCpm5}},
      // o200k
      {"gpt-4o", {kGpt4o}},
      {"llama4", {kGpt4o}},
      {"kanana2", {kGpt4o}},
      {"minimax-m2", {kGpt4o}},
      {"tekken", {kTekken}, true, true},
      {"kimi-k2", {kKimiK2}},
      // DeepSeek
      {"deepseek-llm",
       {"[\r\n]", kDeepseekLlmLetters, kDeepseekLlmPunctuation, R"(\s+$)", kDeepseekLlmCjk,
        kDigits}},
      {"deepseek-coder", {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekLlmCjk, kDigit}},
      {"deepseek-v3", deepseek_v3},
      {"hunyuan-dense", deepseek_v3},
      {"joyai-llm", deepseek_v3},
      {"afmoe", {kGroupDigitsByThree, kAfmoeAsian, kDeepseekV3}},
      // others
      {"falcon", {kFalconPunctuation, kGpt2, kThreeAsciiDigits}},
      {"bloom", {kBloom}},
      {"poro-chat", {kBloom}},
      {"gpt3-finnish", {kBloom}},
      {"viking", {kBloom, kDigit}},
      {"superbpe", {kGroupDigitsByThree}},
  };
}

const std::vector<PreTokenizerSpec>& Table() {
  static const auto* const table = new std::vector<PreTokenizerSpec>(MakeTable());
  return *table;
}

}  // namespace

std::vector<absl::string_view> PreTokenizerNames() {
  std::vector<absl::string_view> names;
  for (const PreTokenizerSpec& spec : Table()) names.push_back(spec.name);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<const PreTokenizerSpec*> FindPreTokenizer(absl::string_view name) {
  for (const PreTokenizerSpec& spec : Table()) {
    if (spec.name == name) return &spec;
  }
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.pre: '", name,
                                                 "' is not a pre-tokenizer that is known here (",
                                                 absl::StrJoin(PreTokenizerNames(), ", "), ")"));
}

}  // namespace dovetail::model
