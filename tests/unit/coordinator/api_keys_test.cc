#include "coordinator/api_keys.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Optional;

TEST(ApiKeysTest, WithoutKeysEverybodyIsTheSameTenant) {
  const ApiKeys keys;
  EXPECT_FALSE(keys.required());
  EXPECT_THAT(keys.Find(""), Optional(std::string()));
  EXPECT_THAT(keys.Find("whatever"), Optional(std::string()));
}

TEST(ApiKeysTest, AKeyGivesItsName) {
  const ApiKeys keys({{"alice", "sk-alice-1234"}, {"bob", "sk-bob-12345"}});
  EXPECT_TRUE(keys.required());
  EXPECT_THAT(keys.Find("sk-alice-1234"), Optional(std::string("alice")));
  EXPECT_THAT(keys.Find("sk-bob-12345"), Optional(std::string("bob")));
  for (const char* wrong : {"", "alice", "sk-alice-123", "sk-alice-12345", "SK-ALICE-1234"}) {
    EXPECT_EQ(keys.Find(wrong), std::nullopt) << wrong;
  }
  EXPECT_EQ(keys.Find(std::string(1 << 20, 'k')), std::nullopt);
}

TEST(ApiKeysTest, ChecksNamesAndKeysAndNeverRepeatsAKey) {
  std::map<std::string, std::string> keys;
  EXPECT_TRUE(AddApiKey("a.b-c_9", "12345678", &keys).ok());
  for (const char* name : {"", "a b", "a/b", "\xc3\xa4"}) {
    EXPECT_FALSE(AddApiKey(name, "abcdefgh", &keys).ok()) << name;
  }
  for (const char* key : {"", "short", "with space", "newline\nnewline"}) {
    const absl::Status status = AddApiKey("bob", key, &keys);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << key;
    if (*key != '\0') {
      EXPECT_THAT(std::string(status.message()), Not(HasSubstr(key)));
    }
  }
  EXPECT_THAT(std::string(AddApiKey("a.b-c_9", "abcdefgh", &keys).message()),
              HasSubstr("two keys"));
  EXPECT_THAT(std::string(AddApiKey("eve", "12345678", &keys).message()), HasSubstr("same key"));
  EXPECT_EQ(keys.size(), 1u);
}

TEST(ApiKeysTest, BearerTokens) {
  EXPECT_EQ(BearerToken("Bearer abc"), "abc");
  EXPECT_EQ(BearerToken("bearer  abc "), "abc");
  EXPECT_EQ(BearerToken("Basic abc"), "");
  EXPECT_EQ(BearerToken("Bearer"), "");
  EXPECT_EQ(BearerToken(""), "");
}

}  // namespace
}  // namespace dovetail::coordinator
