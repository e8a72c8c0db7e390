#include "model/tokenizer/tokenizer.h"

#include <chrono>
#include <limits>
#include <random>

#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/unicode_nfc.h"
#include "model/tokenizer/utf8.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/unit/model/tokenizer_fixture.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::SmallBpe;
using ::dovetail::testing::SmallSpm;
using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<Tokenizer> Make(VocabData vocab) {
  auto tokenizer = CreateTokenizer(std::move(vocab));
  EXPECT_THAT(tokenizer, testing::IsOk());
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

std::vector<TokenId> Ids(const Tokenizer& tokenizer, absl::string_view text,
                         EncodeOptions options = {false, false}) {
  auto ids = tokenizer.Encode(text, options);
  EXPECT_THAT(ids, testing::IsOk());
  return ids.ok() ? *ids : std::vector<TokenId>();
}

// ---- byte-level BPE ----

TEST(BpeTokenizer, MergesByRankThenFromTheLeft) {
  const auto tokenizer = Make(SmallBpe({"a a", "b c", "a b", "aa aa"}));
  EXPECT_THAT(Ids(*tokenizer, "aaa"), ElementsAre(256, 'a'));  // the left pair
  EXPECT_THAT(Ids(*tokenizer, "abc"), ElementsAre('a', 257));  // "b c" is before "a b"
  EXPECT_THAT(Ids(*tokenizer, "aaaa"), ElementsAre(259));
  EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
}

TEST(BpeTokenizer, LongWordsMergeAsShortOnesDo) {
  // 48 symbols are scanned, 49 go through the heap; "aa" pairs give the same ids in both.
  const auto tokenizer = Make(SmallBpe({"a a", "aa aa", "a b", "aaaa aaaa", "b a"}));
  std::mt19937_64 random(testing::TestSeed());
  for (int round = 0; round < 200; ++round) {
    std::string word;
    for (int i = 0; i < 30 + round % 40; ++i) word.push_back("aab"[random() % 3]);
    std::vector<TokenId> ids = Ids(*tokenizer, word);
    EXPECT_EQ(tokenizer->Decode(ids, false), word);
    // The plain definition: best rank, leftmost, again and again.
    std::vector<std::string> parts;
    for (char c : word) parts.emplace_back(1, c);
    const std::vector<std::pair<std::string, std::string>> merges = {
        {"a", "a"}, {"aa", "aa"}, {"a", "b"}, {"aaaa", "aaaa"}, {"b", "a"}};
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right] : merges) {
        for (size_t i = 0; i + 1 < parts.size() && !merged; ++i) {
          if (parts[i] != left || parts[i + 1] != right) continue;
          parts[i] += right;
          parts.erase(parts.begin() + i + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    std::vector<std::string> found;
    for (TokenId id : ids) found.push_back(tokenizer->TokenBytes(id, false));
    ASSERT_EQ(found, parts) << word;
  }
}

TEST(BpeTokenizer, SpecialTokensOnlyWhenAskedForUserDefinedOnesAlways) {
  const auto tokenizer = Make(SmallBpe({}));
  const TokenId start = *tokenizer->FindToken("<|im_start|>");
  const TokenId tool = *tokenizer->FindToken("<tool>");
  EXPECT_THAT(Ids(*tokenizer, "<|im_start|>a<tool>", {false, true}), ElementsAre(start, 'a', tool));
  EXPECT_EQ(Ids(*tokenizer, "<|im_start|>").size(), 12u);
  EXPECT_THAT(Ids(*tokenizer, "<tool>"), ElementsAre(tool));
  EXPECT_TRUE(tokenizer->IsSpecial(start));
  EXPECT_FALSE(tokenizer->IsSpecial(tool));
  EXPECT_FALSE(tokenizer->IsSpecial('a'));
}

TEST(BpeTokenizer, TheLongestSpecialTokenWins) {
  VocabData vocab = SmallBpe({});
  testing::AddToken("<|im_end|>!", TokenType::kControl, 0, &vocab);
  const auto tokenizer = Make(vocab);
  EXPECT_THAT(Ids(*tokenizer, "<|im_end|>!", {false, true}),
              ElementsAre(*tokenizer->FindToken("<|im_end|>!")));
  EXPECT_THAT(Ids(*tokenizer, "<|im_end|>?", {false, true}),
              ElementsAre(*tokenizer->FindToken("<|im_end|>"), '?'));
}

TEST(BpeTokenizer, AddsBosAndEosAsTheFileSays) {
  VocabData vocab = SmallBpe({});
  EXPECT_THAT(Ids(*Make(vocab), "a", {true, false}), ElementsAre('a'));
  vocab.add_bos = true;
  vocab.add_eos = true;
  const auto tokenizer = Make(vocab);
  EXPECT_THAT(Ids(*tokenizer, "a", {true, false}),
              ElementsAre(*tokenizer->bos(), 'a', *tokenizer->eos()));
  EXPECT_THAT(Ids(*tokenizer, "a", {false, false}), ElementsAre('a'));
  vocab.add_bos.reset();
  vocab.pre = "llama-bpe";  // adds BOS unless the file says otherwise
  EXPECT_TRUE(Make(vocab)->add_bos());
}

TEST(BpeTokenizer, IgnoreMergesTakesWholeWords) {
  VocabData vocab = SmallBpe({});
  testing::AddToken("hello", TokenType::kNormal, 0, &vocab);
  EXPECT_EQ(Ids(*Make(vocab), "hello").size(), 5u);
  vocab.pre = "llama-bpe";
  EXPECT_THAT(Ids(*Make(vocab), "hello"), ElementsAre(*Make(vocab)->FindToken("hello")));
}

TEST(BpeTokenizer, MergesMayGoThroughTextsThatAreNoTokens) {
  VocabData vocab = SmallBpe({});
  vocab.merges = {"a b", "ab c"};
  testing::AddToken("abc", TokenType::kNormal, 0, &vocab);
  const auto tokenizer = Make(vocab);
  EXPECT_THAT(Ids(*tokenizer, "abc"), ElementsAre(*tokenizer->FindToken("abc")));
  EXPECT_THAT(Ids(*tokenizer, "abd"), ElementsAre('a', 'b', 'd'));
}

TEST(BpeTokenizer, EndOfGeneration) {
  VocabData vocab = SmallBpe({});
  testing::AddToken("<|endoftext|>", TokenType::kControl, 0, &vocab);
  testing::AddToken("<|eot_id|>", TokenType::kNormal, 0, &vocab);  // plain text, not an ender
  vocab.eot = 7;
  const auto tokenizer = Make(vocab);
  EXPECT_THAT(tokenizer->end_of_generation(),
              ElementsAre(7, *tokenizer->eos(), *tokenizer->FindToken("<|endoftext|>")));
}

TEST(UnicodeNfc, ComposesAndOrdersMarks) {
  EXPECT_EQ(ComposeNfc("e\u0301"), "\u00e9");
  EXPECT_EQ(ComposeNfc("a\u0301\u0323"), "\u1ea1\u0301");       // below before above
  EXPECT_EQ(ComposeNfc("\u1112\u1161\u11ab"), "\ud55c");        // Hangul
  EXPECT_EQ(ComposeNfc("\u212b\u0958"), "\u00c5\u0915\u093c");  // singleton; excluded
  for (const char* same : {"", "plain", "\u00e9", "\u0301", "a\xf0\x9f\xa6\x99"}) {
    EXPECT_EQ(ComposeNfc(same), same);
  }
  EXPECT_FALSE(MayNeedNfc("r\u00e9sum\u00e9 \u02ff"));
  EXPECT_TRUE(MayNeedNfc("e\u0301"));
}

TEST(UnicodeNfc, LongRunsOfMarksTakeNoQuadraticTime) {
  std::string text = "q", sorted = "q";
  for (int i = 0; i < 1'000'000; ++i) text += "\u0301\u0323";  // would take hours
  for (int i = 0; i < 1'000'000; ++i) sorted += "\u0323";
  for (int i = 0; i < 1'000'000; ++i) sorted += "\u0301";
  EXPECT_TRUE(ComposeNfc(text) == sorted);
}

TEST(BpeTokenizer, ComposesTextForQwen) {
  VocabData vocab = SmallBpe({});
  vocab.pre = "qwen2";
  const auto qwen = Make(vocab);
  EXPECT_THAT(Ids(*qwen, "e\u0301<tool>e\u0301"), ElementsAre(0xc3, 0xa9, 258, 0xc3, 0xa9));
  vocab.pre = "llama-bpe";
  EXPECT_THAT(Ids(*Make(vocab), "e\u0301"), ElementsAre('e', 0xcc, 0x81));
}

TEST(BpeTokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Make(SmallBpe({}));
  EXPECT_THAT(tokenizer->Encode("abc\xFF", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("byte 3")));
  EXPECT_THAT(tokenizer->Encode("\xED\xA0\x80", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("byte 0")));
}

TEST(BpeTokenizer, LongSingleWordsTakeLinearithmicTime) {
  VocabData vocab = SmallBpe({"a a", "aa aa", "aaaa aaaa", "aaaaaaaa aaaaaaaa"});
  for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "gpt-4o", "kimi-k2", "deepseek-v3"}) {
    vocab.pre = pre;
    const auto tokenizer = Make(vocab);
    for (const char* unit : {"a", " ", "A", "1", "'", "\n", "\xE4\xB8\x80", "aA"}) {
      std::string text;
      while (text.size() < (1 << 20)) text += unit;
      const auto start = std::chrono::steady_clock::now();
      const std::vector<TokenId> ids = Ids(*tokenizer, text);
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      EXPECT_EQ(tokenizer->Decode(ids, false), text) << pre;
      EXPECT_LT(seconds, 30) << pre << " '" << unit << "'";  // quadratic: hours
    }
  }
}

// ---- SentencePiece ----

TEST(SpmTokenizer, MergesByScoreAndPrefixesASpace) {
  const auto tokenizer = Make(SmallSpm({"▁a", "ab", "▁", "a", "b", "▁ab"}));
  const auto id = [&](absl::string_view text) { return *tokenizer->FindToken(text); };
  // "▁a" has the best score, and "▁a"+"b" is a piece.
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(id("▁ab")));
  EXPECT_THAT(Ids(*tokenizer, "bab"), ElementsAre(id("▁"), id("b"), id("ab")));
  EXPECT_THAT(Ids(*tokenizer, "a a", {true, false}), ElementsAre(1, id("▁a"), id("▁a")));
  EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "ab a", {true, false}), false), "ab a");
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, " ab"), false), " ab");
}

TEST(SpmTokenizer, FallsBackToBytesAndThenToUnknown) {
  VocabData vocab = SmallSpm({"▁"});
  const auto tokenizer = Make(vocab);
  EXPECT_THAT(Ids(*tokenizer, "é"), ElementsAre(*tokenizer->FindToken("▁"), 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "é"), false), "é");
  VocabData no_bytes;
  no_bytes.model = "llama";
  testing::AddToken("<unk>", TokenType::kUnknown, 0, &no_bytes);
  testing::AddToken("▁", TokenType::kNormal, 0, &no_bytes);
  EXPECT_THAT(Ids(*Make(no_bytes), "é"), ElementsAre(1, 0));
}

TEST(SpmTokenizer, ControlTokensDoNotComeFromText) {
  const auto tokenizer = Make(SmallSpm({"<", "s", ">", "<s", "▁"}));
  const auto id = [&](absl::string_view text) { return *tokenizer->FindToken(text); };
  EXPECT_THAT(Ids(*tokenizer, "<s>"), ElementsAre(id("▁"), id("<s"), id(">")));
  EXPECT_THAT(Ids(*tokenizer, "<s>", {false, true}), ElementsAre(1));
  EXPECT_THAT(Ids(*tokenizer, "<0x41>").size(), ::testing::Gt(1u));
}

TEST(SpmTokenizer, SpacePrefixAndExtraSpacesAsTheFileSays) {
  VocabData vocab = SmallSpm({"▁", "a"});
  vocab.add_space_prefix = false;
  EXPECT_EQ(Ids(*Make(vocab), "a").size(), 1u);
  EXPECT_EQ(Make(vocab)->Decode(Ids(*Make(vocab), " a"), false), " a");
  EXPECT_EQ(Ids(*Make(vocab), " a  a ").size(), 6u);
  vocab.remove_extra_whitespaces = true;
  EXPECT_EQ(Ids(*Make(vocab), " a  a ").size(), 3u);
}

TEST(SpmTokenizer, PiecesAcrossWordsAreStillMerged) {
  // "a▁" crosses a word's start, so words are not independent in this vocabulary.
  const auto tokenizer = Make(SmallSpm({"a▁", "▁a", "▁", "a"}));
  EXPECT_THAT(Ids(*tokenizer, "a a"),
              ElementsAre(*tokenizer->FindToken("▁"), *tokenizer->FindToken("a▁"),
                          *tokenizer->FindToken("a")));
}

// ---- decoding ----

TEST(StreamingDetokenizer, NeverEndsInsideACharacterAndEqualsDecode) {
  const auto tokenizer = Make(SmallBpe({}));
  std::mt19937_64 random(testing::TestSeed());
  for (int round = 0; round < 2000; ++round) {
    std::vector<TokenId> ids;
    for (size_t i = 0; i < 1 + random() % 12; ++i) {
      // Many lead and continuation bytes, so that characters begin, break and complete.
      ids.push_back(random() % 3 == 0 ? static_cast<TokenId>(random() % 259)
                                      : static_cast<TokenId>(0x80 + random() % 0x80));
    }
    StreamingDetokenizer stream(tokenizer.get(), false, true);
    std::string joined;
    for (TokenId id : ids) {
      const std::string delta = stream.Push(id);
      ASSERT_EQ(FindInvalidUtf8(delta), absl::string_view::npos);
      joined += delta;
    }
    joined += stream.Finish();
    ASSERT_EQ(joined, tokenizer->Decode(ids, false));
  }
}

TEST(StreamingDetokenizer, HoldsBackExactlyWhatIsIncomplete) {
  const auto tokenizer = Make(SmallBpe({}));
  StreamingDetokenizer stream(tokenizer.get(), false, true);
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Push(0x82), "");
  EXPECT_EQ(stream.Push(0xAC), "€");
  EXPECT_EQ(stream.Push(0xE2), "");
  EXPECT_EQ(stream.Push('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(stream.Push(0xF0), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
}

TEST(Tokenizer, ControlTokensAreTextOnlyWhenAskedFor) {
  const auto tokenizer = Make(SmallBpe({}));
  const std::vector<TokenId> ids = {*tokenizer->FindToken("<|im_start|>"), 'a', -5, 1 << 30};
  EXPECT_EQ(tokenizer->Decode(ids, false), "a");
  EXPECT_EQ(tokenizer->Decode(ids, true), "<|im_start|>a");
}

TEST(Tokenizer, RoundTripOfRandomUnicode) {
  std::mt19937_64 random(testing::TestSeed());
  VocabData bpe = SmallBpe({"a b", "Ġ a", "Ã ©", "ð Ł"});
  struct Case {
    std::unique_ptr<Tokenizer> tokenizer;
    bool nfc;
  };
  std::vector<Case> cases;
  for (absl::string_view pre : PreTokenizerNames()) {
    bpe.pre = std::string(pre);
    cases.push_back({Make(bpe), FindPreTokenizer(pre).value()->nfc});
  }
  cases.push_back({Make(SmallSpm({"▁", "a", "▁a", "é"})), false});
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (size_t i = 0; i < random() % 60; ++i) {
      const uint64_t kind = random() % 6;
      char32_t c = kind == 0   ? random() % 0x80
                   : kind == 1 ? 0x80 + random() % 0x780
                   : kind == 2 ? 0x3000 + random() % 0x7000
                   : kind == 3 ? 0x10000 + random() % 0x10000
                   : kind == 4 ? U" \n\r\t\u3000\u0085\u180E"[random() % 7]
                               : U"abAB019'_.,"[random() % 11];
      AppendUtf8(c, &text);
    }
    for (const auto& [tokenizer, nfc] : cases) {
      ASSERT_EQ(tokenizer->Decode(Ids(*tokenizer, text), false), nfc ? ComposeNfc(text) : text);
    }
  }
}

// ---- vocabularies that are wrong ----

TEST(TokenizerCreate, NoVocabGivesNoEncoding) {
  VocabData vocab;
  vocab.model = "no_vocab";
  const auto tokenizer = Make(vocab);
  EXPECT_FALSE(tokenizer->has_vocab());
  EXPECT_THAT(tokenizer->Encode("a", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no vocabulary")));
}

void ExpectRefused(VocabData vocab, const std::string& message) {
  EXPECT_THAT(CreateTokenizer(std::move(vocab)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(TokenizerCreate, RefusesWhatDoesNotFit) {
  VocabData vocab = SmallBpe({});
  vocab.model = "wordpiece";
  ExpectRefused(vocab, "tokenizer.ggml.model: 'wordpiece' is not supported");

  vocab = SmallBpe({});
  vocab.pre = "klingon";
  ExpectRefused(vocab, "tokenizer.ggml.pre: 'klingon'");
  EXPECT_THAT(CreateTokenizer(vocab), StatusIs(absl::StatusCode::kInvalidArgument,
                                               AllOf(HasSubstr("smollm"), HasSubstr("qwen2"))));

  vocab = SmallBpe({});
  vocab.types.pop_back();
  ExpectRefused(vocab, "tokenizer.ggml.token_type: 258 entries for 259 tokens");

  vocab = SmallBpe({});
  vocab.tokens.clear();
  ExpectRefused(vocab, "tokenizer.ggml.tokens: missing or empty");

  vocab = SmallBpe({});
  vocab.merges = {"a b", "ab"};
  ExpectRefused(vocab, "tokenizer.ggml.merges[1]: 'ab'");

  for (const char* merge : {"", " ", "a ", " a", "  "}) {
    vocab.merges = {merge};
    ExpectRefused(vocab, "tokenizer.ggml.merges[0]");
  }

  vocab = SmallBpe({});
  vocab.eos = 259;
  ExpectRefused(vocab, "tokenizer.ggml.eos_token_id: 259 is outside the vocabulary of 259");

  vocab = SmallBpe({});
  vocab.bos.reset();
  vocab.add_bos = true;
  ExpectRefused(vocab, "bos_token_id");

  vocab = SmallSpm({"a"});
  vocab.scores[5] = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(vocab, "tokenizer.ggml.scores[5]: not a finite number");

  vocab = SmallSpm({"a"});
  vocab.scores.clear();
  ExpectRefused(vocab, "tokenizer.ggml.scores: missing");

  vocab = SmallSpm({"a"});
  vocab.tokens[4] = "<0xZZ>";
  ExpectRefused(vocab, "tokenizer.ggml.tokens[4]: '<0xZZ>'");
}

TEST(TokenizerCreate, VocabularyWithoutAByteSaysSo) {
  VocabData vocab;
  vocab.model = "gpt2";
  testing::AddToken("a", TokenType::kNormal, 0, &vocab);
  EXPECT_THAT(Make(vocab)->Encode("ab", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("byte 0x62")));
}

}  // namespace
}  // namespace dovetail::model
