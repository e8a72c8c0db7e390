#include "tests/testing/tiny_llama.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/float_convert.h"

namespace dovetail::testing {
namespace {

class Random {  // splitmix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Twelve uniforms: variance 1, and no libm whose last bit may differ.
  double Normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += Uniform();
    return sum;
  }
  std::string Bytes(size_t count) {
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = static_cast<char>(Next() >> 56);
    return bytes;
  }

 private:
  uint64_t state_;
};

std::string Half(double value) { return GgufWriter::Bytes(F32ToF16(static_cast<float>(value))); }

// Six-bit scales and minimums of Q4_K, each minimum equal to its scale.
std::string PackQ4KScales(Random& random) {
  uint8_t s[8];
  for (uint8_t& v : s) v = static_cast<uint8_t>(32 + random.Next() % 32);
  std::string out(12, '\0');
  for (int j = 0; j < 4; ++j) {
    const uint8_t low = static_cast<uint8_t>(s[j] | (s[j + 4] >> 4) << 6);
    out[j] = out[j + 4] = static_cast<char>(low);
    out[j + 8] = static_cast<char>((s[j + 4] & 15) | (s[j + 4] & 15) << 4);
  }
  return out;
}

// Where a type has nothing but random bytes and one half: the bytes before and after it, and the
// root mean square of the weights for d = 1.
struct PlainType {
  WeightType type;
  int before, after;
  double sigma;
};

constexpr PlainType kPlainTypes[] = {
    {WeightType::kQ4_0, 0, 16, 4.61},  {WeightType::kQ5_0, 0, 20, 9.24},
    {WeightType::kQ8_0, 0, 32, 73.9},  {WeightType::kIQ4_NL, 0, 16, 69},
    {WeightType::kQ3_K, 108, 0, 43},   {WeightType::kIQ4_XS, 0, 134, 1280},
    {WeightType::kIQ2_XXS, 0, 64, 55}, {WeightType::kIQ2_XS, 0, 72, 55},
    {WeightType::kIQ2_S, 0, 80, 55},   {WeightType::kIQ3_XXS, 0, 96, 140},
    {WeightType::kIQ3_S, 0, 108, 150}, {WeightType::kIQ1_S, 0, 48, 7.5},
    {WeightType::kTQ1_0, 52, 0, 0.8},  {WeightType::kTQ2_0, 64, 0, 1.2},
};

// The bytes of FP4 blocks: their scales are small floats of their own.
std::string RandomFp4Block(WeightType type, double scale, Random& random) {
  const double d = scale / 5.85;
  if (type == WeightType::kMXFP4) {
    const int e = 128 + static_cast<int>(std::lround(std::log2(d)));
    return std::string(1, static_cast<char>(e)) + random.Bytes(16);
  }
  // Subnormal codes are multiples of 2^-10; larger scales than seven of them are not needed here.
  const long code = std::min(7L, std::max(1L, std::lround(d * 1024)));
  return std::string(4, static_cast<char>(code)) + random.Bytes(32);
}

std::string RandomKBlock(WeightType type, double scale, Random& random) {
  constexpr double kSigma2 = 1.118, kSigma4 = 4.61, kSigma5 = 9.24, kSigma6 = 18.5;
  switch (type) {
    case WeightType::kQ2_K: {  // each minimum equal to its scale
      const double d = scale / (11.5 * kSigma2);
      std::string out;
      for (int i = 0; i < 16; ++i) out += static_cast<char>((8 + random.Next() % 8) * 0x11);
      return out + random.Bytes(64) + Half(d) + Half(1.5 * d);
    }
    case WeightType::kQ4_K: {
      const double d = scale / (47.5 * kSigma4);
      return Half(d) + Half(7.5 * d) + PackQ4KScales(random) + random.Bytes(128);
    }
    case WeightType::kQ5_K: {
      const double d = scale / (47.5 * kSigma5);
      return Half(d) + Half(15.5 * d) + PackQ4KScales(random) + random.Bytes(160);
    }
    case WeightType::kQ6_K: {
      std::string out = random.Bytes(128 + 64);
      for (int i = 0; i < 16; ++i) out += static_cast<char>(64 + random.Next() % 64);
      return out + Half(scale / (95.5 * kSigma6));
    }
    default:
      break;
  }
  DT_CHECK(false && "no random weights for this type");
}

// The half is the high nibbles of four 16-bit words.
std::string RandomIq1MBlock(double scale, Random& random) {
  std::string out = random.Bytes(56);
  const uint16_t d = F32ToF16(static_cast<float>(scale / 7.5));
  for (int i = 0; i < 4; ++i) {
    char& byte = out[48 + 2 * i + 1];
    byte = static_cast<char>((byte & 15) | (d >> (4 * i) & 15) << 4);
  }
  return out;
}

// One block: random codes, and scales that give the weights about the wanted standard deviation.
// Codes of b bits are uniform, with standard deviation 2^b / sqrt(12).
std::string RandomBlock(WeightType type, double scale, Random& random) {
  for (const PlainType& plain : kPlainTypes) {
    if (plain.type != type) continue;
    const std::string before = random.Bytes(plain.before);
    return before + Half(scale / plain.sigma) + random.Bytes(plain.after);
  }
  constexpr double kSigma4 = 4.61, kSigma5 = 9.24;
  switch (type) {
    case WeightType::kF32:
      return GgufWriter::Bytes(static_cast<float>(scale * random.Normal()));
    case WeightType::kF16:
      return Half(scale * random.Normal());
    case WeightType::kBF16:
      return GgufWriter::Bytes(F32ToBf16(static_cast<float>(scale * random.Normal())));
    case WeightType::kQ4_1:
      return Half(scale / kSigma4) + Half(-7.5 * scale / kSigma4) + random.Bytes(16);
    case WeightType::kQ5_1:
      return Half(scale / kSigma5) + Half(-15.5 * scale / kSigma5) + random.Bytes(20);
    case WeightType::kMXFP4:
    case WeightType::kNVFP4:
      return RandomFp4Block(type, scale, random);
    case WeightType::kIQ1_M:
      return RandomIq1MBlock(scale, random);
    default:
      return RandomKBlock(type, scale, random);
  }
}

// GPT-2's map from bytes to printable characters, as UTF-8.
std::string ByteSymbol(int byte) {
  int next = 256;
  int code = 0;
  for (int b = 0; b <= byte; ++b) {
    const bool printable =
        (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
    code = printable ? b : next++;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

constexpr const char* kChatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

void AddTokenizer(GgufWriter& writer, int vocab) {
  constexpr int kNormal = 1, kControl = 3, kUnused = 5;
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<int32_t> types(3, kControl);
  const auto add = [&](const std::string& token, int type) {
    tokens.push_back(token);
    types.push_back(type);
  };
  for (int byte = 0; byte < 256; ++byte) add(ByteSymbol(byte), kNormal);
  const std::string space = ByteSymbol(' ');
  const std::vector<std::pair<std::string, std::string>> merges = {
      {space, "t"}, {"h", "e"}, {space, "a"}, {"i", "n"},   {space + "t", "he"},
      {"r", "e"},   {"o", "n"}, {"e", "r"},   {space, "s"}, {"a", "t"},
      {"e", "n"},   {"o", "r"}, {"l", "l"},   {space, "w"}, {"in", "g"}};
  std::vector<std::string> merge_texts;
  for (const auto& [left, right] : merges) {
    merge_texts.push_back(absl::StrCat(left, " ", right));
    add(left + right, kNormal);
  }
  DT_CHECK_LE(tokens.size(), static_cast<size_t>(vocab));
  while (tokens.size() < static_cast<size_t>(vocab)) {
    add(absl::StrCat("<|unused_", tokens.size(), "|>"), kUnused);
  }
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", "smollm");
  writer.AddStrings("tokenizer.ggml.tokens", tokens);
  writer.AddInt32s("tokenizer.ggml.token_type", types);
  writer.AddStrings("tokenizer.ggml.merges", merge_texts);
  writer.AddUint32("tokenizer.ggml.bos_token_id", 1);
  writer.AddUint32("tokenizer.ggml.eos_token_id", 2);
  writer.AddUint32("tokenizer.ggml.unknown_token_id", 0);
  writer.AddBool("tokenizer.ggml.add_bos_token", false);
  writer.AddString("tokenizer.chat_template", kChatTemplate);
}

void AddMetadata(GgufWriter& writer, const TinyLlamaOptions& options) {
  writer.AddString("general.architecture", "llama");
  writer.AddString("general.name", "Tiny Llama");
  writer.AddUint32("llama.block_count", options.layers);
  writer.AddUint32("llama.context_length", options.context);
  writer.AddUint32("llama.embedding_length", options.hidden);
  writer.AddUint32("llama.feed_forward_length", options.ffn);
  writer.AddUint32("llama.attention.head_count", options.heads);
  writer.AddUint32("llama.attention.head_count_kv", options.kv_heads);
  writer.AddFloat32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddFloat32("llama.rope.freq_base", 10000.0f);
  writer.AddUint32("llama.vocab_size", options.vocab);
  if (options.experts > 0) {
    writer.AddUint32("llama.expert_count", options.experts);
    writer.AddUint32("llama.expert_used_count", options.experts_used);
  }
  if (options.tokenizer) {
    AddTokenizer(writer, options.vocab);
  } else {
    writer.AddString("tokenizer.ggml.model", "no_vocab");
  }
}

}  // namespace

std::string RandomWeights(WeightType type, int64_t rows, int64_t cols, double scale,
                          uint64_t seed) {
  const int64_t block = InfoOf(type).block_elements;
  DT_CHECK_EQ(cols % block, 0);
  Random random(seed);
  std::string data;
  for (int64_t i = 0; i < rows * cols / block; ++i) data += RandomBlock(type, scale, random);
  DT_CHECK_EQ(static_cast<int64_t>(data.size()), StoredBytes(type, rows * cols));
  return data;
}

GgufWriter MakeTinyLlama(const TinyLlamaOptions& options) {
  GgufWriter writer;
  AddMetadata(writer, options);
  uint64_t seed = options.seed * 1000003;
  const auto matrix = [&](const std::string& name, int rows, int cols, double gain) {
    writer.AddTensor(name + ".weight", options.type,
                     {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)},
                     RandomWeights(options.type, rows, cols, gain / std::sqrt(cols), ++seed));
  };
  const auto norm = [&](const std::string& name) {
    Random random(++seed);
    std::string data;
    for (int i = 0; i < options.hidden; ++i) {
      data += GgufWriter::Bytes(static_cast<float>(1 + 0.1 * random.Normal()));
    }
    writer.AddTensor(name + ".weight", WeightType::kF32, {static_cast<uint64_t>(options.hidden)},
                     data);
  };
  const auto experts = [&](const std::string& name, WeightType type, int count, int rows,
                           int cols) {
    std::vector<uint64_t> shape = {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)};
    if (count > 1) shape.push_back(static_cast<uint64_t>(count));
    writer.AddTensor(name + ".weight", type, shape,
                     RandomWeights(type, int64_t{count} * rows, cols, 1 / std::sqrt(cols), ++seed));
  };
  const int kv = options.hidden / options.heads * options.kv_heads;
  matrix("token_embd", options.vocab, options.hidden, 3.0);
  for (int layer = 0; layer < options.layers; ++layer) {
    const std::string blk = absl::StrCat("blk.", layer, ".");
    norm(blk + "attn_norm");
    matrix(blk + "attn_q", options.hidden, options.hidden, 1.5);
    matrix(blk + "attn_k", kv, options.hidden, 1.5);
    matrix(blk + "attn_v", kv, options.hidden, 1.0);
    matrix(blk + "attn_output", options.hidden, options.hidden, 1.0);
    norm(blk + "ffn_norm");
    if (options.experts == 0) {
      matrix(blk + "ffn_gate", options.ffn, options.hidden, 1.0);
      matrix(blk + "ffn_up", options.ffn, options.hidden, 1.0);
      matrix(blk + "ffn_down", options.hidden, options.ffn, 1.0);
    } else {
      experts(blk + "ffn_gate_inp", WeightType::kF32, 1, options.experts, options.hidden);
      experts(blk + "ffn_gate_exps", options.type, options.experts, options.ffn, options.hidden);
      experts(blk + "ffn_up_exps", options.type, options.experts, options.ffn, options.hidden);
      experts(blk + "ffn_down_exps", options.type, options.experts, options.hidden, options.ffn);
    }
  }
  norm("output_norm");
  if (!options.tied) matrix("output", options.vocab, options.hidden, 3.0);
  return writer;
}

void WriteTinyLlama(const std::string& path, const TinyLlamaOptions& options) {
  MakeTinyLlama(options).Write(path);
}

}  // namespace dovetail::testing
