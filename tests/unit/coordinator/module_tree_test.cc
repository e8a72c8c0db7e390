#include "coordinator/placement/ktransformers/module_tree.h"

#include <gtest/gtest.h>

namespace dovetail::coordinator::ktransformers {
namespace {

std::string ErrorOf(const std::string& json) {
  return std::string(ReadModuleTree(json, "t.json").status().message());
}

TEST(ModuleTree, KnowsWhereEachSubtreeEnds) {
  const auto tree = ReadModuleTree(
      R"({"modules": {"": {"class": "a.R"}, "b": {"class": "a.B"},
          "b.c": {"class": "a.C", "params": {"weight": "w"}}, "b.c.d": {"class": "a.D"},
          "e": {"class": "a.B"}}, "collapsed_experts": {"b": 4}})",
      "t.json");
  ASSERT_TRUE(tree.ok()) << tree.status();
  std::vector<int> ends;
  for (const Module& module : tree->modules) ends.push_back(module.end);
  EXPECT_EQ(ends, (std::vector<int>{5, 4, 4, 4, 5}));
  EXPECT_EQ(tree->modules[1].num_experts, 4);
  EXPECT_TRUE(tree->modules[2].owns_weights);
  EXPECT_FALSE(tree->modules[3].owns_weights);
  EXPECT_EQ(tree->ClassOf(tree->modules[4]), "a.B");
  EXPECT_EQ(tree->classes.size(), 4u);
}

TEST(ModuleTree, KeepsTheOrderOfTheFile) {
  const auto tree = ReadModuleTree(
      R"({"modules": {"": {"class": "a"}, "z": {"class": "a"}, "y": {"class": "a"}}})", "t.json");
  ASSERT_TRUE(tree.ok());
  EXPECT_EQ(tree->modules[1].name, "z");
  EXPECT_EQ(tree->modules[2].name, "y");
}

TEST(ModuleTree, RefusesOtherFiles) {
  EXPECT_EQ(ErrorOf("{"), "t.json: is not JSON");
  EXPECT_EQ(ErrorOf("[]"), "t.json: has no `modules`; it is not a module tree");
  EXPECT_EQ(ErrorOf(R"({"modules": {"": 3}})"), "t.json: module `` has no class");
  EXPECT_EQ(ErrorOf(R"({"modules": {"": {"class": "a"}, "b.c": {"class": "a"}}})"),
            "t.json: module `b.c` does not follow its parent; modules are listed in the order of a "
            "walk that begins with the root, \"\"");
  EXPECT_EQ(ErrorOf(R"({"modules": {"": {"class": "a"}}, "collapsed_experts": {"": -1}})"),
            "t.json: `collapsed_experts` of `` must be a count");
  EXPECT_EQ(ErrorOf(R"({"modules": {"": {"class": "a"}}, "class_mro": {"a": 1}})"),
            "t.json: `class_mro` must hold lists");
}

TEST(ModuleTree, ClassesAreNamedByTheirImportPath) {
  ModuleTree tree;
  const PythonClass linear{"torch.nn.modules.linear.Linear",
                           {"torch.nn.modules.linear.Linear", "torch.nn.modules.module.Module"}};
  const PythonClass gate{"k.models.modeling_v3.MoEGate", {"k.models.modeling_v3.MoEGate"}};
  for (const char* path : {"torch.nn.Linear", "torch.nn.modules.linear.Linear", "torch.nn.Module",
                           "torch.nn.modules.Linear", "Linear"}) {
    EXPECT_TRUE(IsInstance(tree, linear, path)) << path;
  }
  for (const char* path : {"torch.Linear", "torch.nn.Embedding", "linear.Linear", "x.Linear", ""}) {
    EXPECT_FALSE(IsInstance(tree, linear, path)) << path;
  }
  EXPECT_FALSE(IsInstance(tree, gate, "other.modeling_v3.MoEGate"));
  tree.by_last_names = true;
  EXPECT_TRUE(IsInstance(tree, gate, "other.modeling_v3.MoEGate"));
  EXPECT_FALSE(IsInstance(tree, gate, "k.models.modeling_v2.MoEGate"));
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
