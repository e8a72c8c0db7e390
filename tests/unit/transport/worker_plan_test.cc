#include "transport/worker_plan.h"

#include "dovetail/v1/plan.pb.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::transport {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

WorkerPlan SomePlan() {
  WorkerPlan plan;
  plan.plan_id = 0xfedcba9876543210;
  plan.model_path = "/models/a.gguf";
  plan.model_fingerprint = 0x8000000000000001;
  plan.route = {
      {"cpu:0", {{OpKind::kEmbedding, -1}, {OpKind::kAttention, 0}, {OpKind::kMlp, 0}}},
      {"cpu:1", {{OpKind::kNorm, -1}, {OpKind::kLmHead, -1}}, {{"cpu:1", 2}, {"cpu:0", 0.1}}},
      {"cpu:2", {{OpKind::kRouter, 1}, {OpKind::kSharedExperts, 1}, {OpKind::kExperts, 1, 8, 64}}}};
  plan.step_shape = {.max_rows = 512,
                     .max_sequences = 16,
                     .max_logit_rows = 64,
                     .context_length = 4096,
                     .num_kv_blocks = 300,
                     .kv_type = KvType::kF32};
  plan.ring_bytes = 1 << 20;
  return plan;
}

TEST(WorkerPlan, RoundTrips) {
  for (const KvType kv_type : kKvTypes) {
    WorkerPlan plan = SomePlan();
    plan.step_shape.kv_type = kv_type;
    plan.step_shape.layer_kv_types = {KvType::kF16, kv_type};
    v1::WorkerPlan sent, got;
    ToProto(plan, &sent);
    ASSERT_TRUE(got.ParseFromString(sent.SerializeAsString()));
    ASSERT_OK_AND_ASSIGN(const WorkerPlan back, FromProto(got));
    EXPECT_EQ(back.plan_id, plan.plan_id);
    EXPECT_EQ(back.model_path, plan.model_path);
    EXPECT_EQ(back.model_fingerprint, plan.model_fingerprint);
    EXPECT_EQ(back.route, plan.route);
    EXPECT_EQ(back.step_shape, plan.step_shape);
    EXPECT_EQ(back.ring_bytes, plan.ring_bytes);
  }
}

TEST(WorkerPlan, ListsEveryMissingField) {
  const absl::Status status = FromProto(v1::WorkerPlan()).status();
  for (const char* part :
       {"model_path is empty", "route is empty", "max_rows is 0", "max_sequences is 0",
        "max_logit_rows is 0", "context_length_tokens is 0", "num_kv_blocks is 0", "kv_type is 0",
        "ring_bytes is 0"}) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)));
  }
}

template <typename Change>
absl::Status With(Change change) {
  v1::WorkerPlan proto;
  ToProto(SomePlan(), &proto);
  change(proto);
  return FromProto(proto).status();
}

#define EXPECT_REFUSED(status, text) \
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)))

TEST(WorkerPlan, NamesTheFieldThatIsOutOfRange) {
  using P = v1::WorkerPlan;
  EXPECT_OK(With([](P&) {}));
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(1)->clear_worker(); }), "route[1].worker");
  const auto with_member = [](auto change) {
    return With([&](P& p) { change(*p.mutable_route(1)->mutable_members(1)); });
  };
  EXPECT_REFUSED(with_member([](auto& m) { m.set_share(0); }), "route[1].members[1].share is 0");
  EXPECT_REFUSED(with_member([](auto& m) { m.set_worker("cpu:1"); }), "cpu:1 is there twice");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(1)->mutable_members()->RemoveLast(); }),
                 "route[1].members is 1, allowed are 2 to 16");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(1)->set_worker("cpu:0"); }),
                 "route[1]: the first member is not cpu:0");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(1)->clear_ops(); }), "route[1].ops is empty");
  EXPECT_REFUSED(
      With([](P& p) { p.mutable_route(0)->mutable_ops(2)->set_kind(static_cast<v1::OpKind>(17)); }),
      "route[0].ops[2].kind is 17");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(0)->mutable_ops(1)->set_layer(-1); }),
                 "route[0].ops[1].layer is -1");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(0)->mutable_ops(0)->set_layer(0); }),
                 "route[0].ops[0].layer is 0, expected -1");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(2)->mutable_ops(2)->set_expert_end(8); }),
                 "route[2].ops[2]: experts 8 to 8 are no range of experts");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(2)->mutable_ops(2)->set_expert_begin(-1); }),
                 "experts -1 to 64");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(2)->mutable_ops(2)->set_expert_end(1 << 17); }),
                 "experts 8 to 131072");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(2)->mutable_ops(0)->set_expert_end(1); }),
                 "route[2].ops[0]: experts 0 to 1");
  EXPECT_REFUSED(With([](P& p) { p.mutable_route(2)->mutable_ops(0)->set_layer(-1); }),
                 "route[2].ops[0].layer is -1");
  EXPECT_REFUSED(With([](P& p) { p.mutable_step_shape()->set_max_rows(-5); }), "max_rows is -5");
  EXPECT_REFUSED(With([](P& p) { p.mutable_step_shape()->set_num_kv_blocks(INT32_MAX); }),
                 "num_kv_blocks is 2147483647");
  EXPECT_REFUSED(
      With([](P& p) { p.mutable_step_shape()->set_kv_type(static_cast<v1::KvType>(9)); }),
      "step_shape.kv_type is 9, which is no type");
  EXPECT_REFUSED(
      With([](P& p) { p.mutable_step_shape()->add_layer_kv_types(v1::KV_TYPE_UNSPECIFIED); }),
      "step_shape.layer_kv_types[0] is 0, which is no type");
  EXPECT_REFUSED(With([](P& p) { p.set_ring_bytes(~uint64_t{0}); }), "ring_bytes is");
}

}  // namespace
}  // namespace dovetail::transport
