#include "coordinator/model_directory.h"

#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;

ModelEntry Entry(const std::string& name, std::vector<std::string> aliases = {}) {
  ModelEntry entry;
  entry.name = name;
  entry.aliases = std::move(aliases);
  return entry;
}

TEST(ModelDirectoryTest, TheOnlyOneNeedsNoName) {
  const ModelDirectory one({Entry("tiny", {"gpt-4"})});
  EXPECT_FALSE(one.has_several());
  for (const char* name : {"", "tiny", "gpt-4"}) {
    ASSERT_OK_AND_ASSIGN(const ModelEntry* found, one.Find(name));
    EXPECT_EQ(found, &one.models()[0]) << name;
  }
  EXPECT_THAT(one.Find("gpt-5"),
              StatusIs(absl::StatusCode::kNotFound, "The model `gpt-5` does not exist"));
}

TEST(ModelDirectoryTest, OneOfSeveralIsNamed) {
  const ModelDirectory two({Entry("org/tiny"), Entry("small", {"default", "gpt-4"})});
  EXPECT_TRUE(two.has_several());
  ASSERT_OK_AND_ASSIGN(const ModelEntry* tiny, two.Find("org/tiny"));
  EXPECT_EQ(tiny->name, "org/tiny");
  ASSERT_OK_AND_ASSIGN(const ModelEntry* small, two.Find("default"));
  EXPECT_EQ(small->name, "small");
  EXPECT_THAT(two.Find(""), StatusIs(absl::StatusCode::kInvalidArgument,
                                     "`model` is required: this server has `org/tiny`, `small`"));
  EXPECT_THAT(two.Find("Small"),
              StatusIs(absl::StatusCode::kNotFound, "The model `Small` does not exist"));
}

}  // namespace
}  // namespace dovetail::coordinator
