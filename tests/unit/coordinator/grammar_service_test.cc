#include "coordinator/grammar/grammar_service.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/byte_tokenizer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::ByteTokenizer;
using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Compiled = absl::StatusOr<std::shared_ptr<const Grammar>>;

class GrammarServiceTest : public ::testing::Test {
 protected:
  void Start(const GrammarOptions& options = {}, std::vector<std::string> markers = {}) {
    service_ = std::make_unique<GrammarService>(&tokenizer_, ByteTokenizer::kVocab,
                                                std::move(markers), options);
  }
  Compiled Compile(GrammarKind kind, const std::string& source) {
    Compiled result = absl::InternalError("");
    absl::Notification done;
    service_->Compile({kind, source, "the_field"}, [&](Compiled compiled) {
      result = std::move(compiled);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  static bool Allows(TokenConstraint& constraint, int32_t token) {
    EXPECT_TRUE(constraint.WaitReady(absl::Seconds(20)));
    EXPECT_OK(constraint.next().status);
    const auto& mask = constraint.next().mask;
    return mask.empty() || (mask[token / 32] >> (token % 32) & 1) != 0;
  }
  // True if every byte is allowed in its turn and the text may end.
  bool Accepts(GrammarKind kind, const std::string& source, const std::string& text) {
    const Compiled grammar = Compile(kind, source);
    EXPECT_OK(grammar);
    if (!grammar.ok()) return false;
    const auto constraint = (*grammar)->Start(nullptr);
    for (char c : text) {
      if (!Allows(*constraint, static_cast<unsigned char>(c))) return false;
      constraint->Accept(static_cast<unsigned char>(c));
    }
    return Allows(*constraint, ByteTokenizer::kEnd);
  }

  ByteTokenizer tokenizer_;
  std::unique_ptr<GrammarService> service_;
};

TEST_F(GrammarServiceTest, KindsOfGrammars) {
  Start();
  EXPECT_TRUE(Accepts(GrammarKind::kJsonObject, "", R"({"a": [1, {"b": null}]})"));
  EXPECT_TRUE(Accepts(GrammarKind::kJsonObject, "", "{\n  \"a\": 1\n}"));
  EXPECT_FALSE(Accepts(GrammarKind::kJsonObject, "", "[1]"));
  EXPECT_FALSE(Accepts(GrammarKind::kJsonObject, "", "{\"a\":"));
  const std::string schema =
      R"({"type":"object","properties":{"z":{"type":"integer"},"a":{"enum":["x","y"]}},)"
      R"("required":["z","a"]})";
  EXPECT_TRUE(Accepts(GrammarKind::kJsonSchema, schema, R"({"z": 1, "a": "y"})"));
  EXPECT_FALSE(Accepts(GrammarKind::kJsonSchema, schema, R"({"z": 1, "a": "w"})"));
  EXPECT_FALSE(Accepts(GrammarKind::kJsonSchema, schema, R"({"z": 1})"));
  EXPECT_TRUE(Accepts(GrammarKind::kRegex, "[a-c]{2,3}", "abc"));
  EXPECT_FALSE(Accepts(GrammarKind::kRegex, "[a-c]{2,3}", "a"));
  EXPECT_TRUE(Accepts(GrammarKind::kEbnf, "root ::= \"yes\" | \"no\"", "no"));
  EXPECT_FALSE(Accepts(GrammarKind::kEbnf, "root ::= \"yes\" | \"no\"", "nono"));
}

TEST_F(GrammarServiceTest, SpecialTokensAreNotAllowedButForMarkers) {
  Start({}, {"<user>"});
  const Compiled grammar = Compile(GrammarKind::kStructuralTag,
                                   R"({"type":"structural_tag","format":{"type":"any_text"}})");
  ASSERT_OK(grammar);
  const auto constraint = (*grammar)->Start(nullptr);
  EXPECT_TRUE(Allows(*constraint, 'a'));
  EXPECT_TRUE(Allows(*constraint, ByteTokenizer::kUserMark));
  EXPECT_FALSE(Allows(*constraint, ByteTokenizer::kAnswerMark));
  EXPECT_FALSE(Allows(*constraint, ByteTokenizer::kBos));
}

TEST_F(GrammarServiceTest, AMaskFollowsEveryTokenAndWakes) {
  Start();
  const Compiled grammar = Compile(GrammarKind::kRegex, "ab");
  ASSERT_OK(grammar);
  std::atomic<int> wakes{0};
  const auto constraint = (*grammar)->Start([&] { ++wakes; });
  EXPECT_TRUE(Allows(*constraint, 'a'));
  EXPECT_FALSE(Allows(*constraint, 'b'));
  constraint->Accept('a');
  EXPECT_TRUE(Allows(*constraint, 'b'));
  constraint->Accept('b');
  EXPECT_TRUE(Allows(*constraint, ByteTokenizer::kEnd));
  EXPECT_FALSE(constraint->next().finished);
  constraint->Accept(ByteTokenizer::kEnd);
  EXPECT_TRUE(constraint->WaitReady(absl::Seconds(20)));
  EXPECT_TRUE(constraint->next().finished);
  while (wakes < 4) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(GrammarServiceTest, ATokenThatDoesNotFitIsAnError) {
  Start();
  const Compiled grammar = Compile(GrammarKind::kRegex, "ab");
  ASSERT_OK(grammar);
  const auto constraint = (*grammar)->Start(nullptr);
  constraint->Accept('x');
  EXPECT_TRUE(constraint->WaitReady(absl::Seconds(20)));
  EXPECT_THAT(constraint->next().status,
              StatusIs(absl::StatusCode::kInternal, HasSubstr("does not allow")));
}

TEST_F(GrammarServiceTest, BadGrammarsNameTheField) {
  Start();
  const struct {
    GrammarKind kind;
    const char* source;
  } kCases[] = {
      {GrammarKind::kJsonSchema, "not json"},
      {GrammarKind::kJsonSchema, R"({"type":"nonsense"})"},
      {GrammarKind::kJsonSchema, R"({"type":["string"],"pattern":"("})"},
      {GrammarKind::kJsonSchema, R"({"$ref":"#/$defs/absent"})"},
      {GrammarKind::kRegex, "(a"},
      {GrammarKind::kRegex, "a{5,2}"},
      {GrammarKind::kEbnf, "root ::= "},
      {GrammarKind::kEbnf, "other ::= \"a\""},
      {GrammarKind::kStructuralTag, "{}"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Compile(c.kind, c.source),
                StatusIs(absl::StatusCode::kInvalidArgument, StartsWith("`the_field` cannot be")))
        << c.source;
  }
}

TEST_F(GrammarServiceTest, LimitsAreKept) {
  GrammarOptions options;
  options.max_source_bytes = 100;
  options.compile_threads = 0;  // as if all were busy with one that never ends
  options.compile_timeout = absl::Milliseconds(20);
  options.max_waiting = 1;
  Start(options);
  EXPECT_THAT(Compile(GrammarKind::kRegex, std::string(101, 'a')),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`the_field` is too large: 101 bytes; at most 100 are allowed"));
  EXPECT_THAT(Compile(GrammarKind::kJsonObject, ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`the_field` takes more than 20ms to compile; use a simpler one"));
  EXPECT_THAT(Compile(GrammarKind::kJsonObject, ""),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("too many grammars")));
}

TEST_F(GrammarServiceTest, RecursionAndCountsDoNotHurt) {
  GrammarOptions options;
  options.compile_timeout = absl::Seconds(60);
  Start(options);
  // A schema that refers to itself is a grammar like any other.
  EXPECT_OK(
      Compile(GrammarKind::kJsonSchema, R"({"type":"object","properties":{"next":{"$ref":"#"}}})"));
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += "(";
  EXPECT_THAT(Compile(GrammarKind::kRegex, deep),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
}

TEST_F(GrammarServiceTest, TheEndAnswersWhatWaits) {
  Start();
  std::atomic<int> answers{0};
  for (int i = 0; i < 20; ++i) {
    service_->Compile({GrammarKind::kRegex, std::string(i + 1, 'a'), "f"},
                      [&](const Compiled&) { ++answers; });
  }
  service_.reset();
  EXPECT_EQ(answers, 20);
}

}  // namespace
}  // namespace dovetail::coordinator
