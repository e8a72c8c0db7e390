#include "coordinator/fair_queue.h"

#include <deque>
#include <map>

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  Sequence* Add(const std::string& tenant, int priority = 0) {
    Sequence& sequence = sequences_.emplace_back();
    sequence.id = sequences_.size();
    sequence.tenant_name = tenant;
    sequence.priority = priority;
    sequence.arrival = now_;
    queue_.Enter(&sequence);
    queue_.Push(&sequence);
    return &sequence;
  }
  Sequence* Next() {
    return queue_.Next(now_, [](const Sequence&) { return true; });
  }
  // Takes the next one out, serves it and lets it go.
  std::string Serve(double tokens) {
    Sequence* next = Next();
    queue_.Remove(next);
    next->tenant->service += tokens;
    queue_.Leave(next);
    return next->tenant_name;
  }

  FairQueue queue_{absl::Seconds(30)};
  std::deque<Sequence> sequences_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(FairQueueTest, TheOldestOfOneTenantFirst) {
  EXPECT_EQ(Next(), nullptr);
  Sequence* first = Add("a");
  Add("a");
  EXPECT_EQ(Next(), first);
}

TEST_F(FairQueueTest, TenantsShareByTokensHoweverManyTheySend) {
  for (int i = 0; i < 100; ++i) Add("many");
  for (int i = 0; i < 10; ++i) Add("few");
  std::map<std::string, int> served;
  for (int i = 0; i < 20; ++i) ++served[Serve(50)];
  EXPECT_EQ(served["few"], 10);
  EXPECT_EQ(served["many"], 10);
}

TEST_F(FairQueueTest, LongRequestsCountForMore) {
  for (int i = 0; i < 40; ++i) Add("long");
  for (int i = 0; i < 40; ++i) Add("short");
  std::map<std::string, double> tokens;
  for (int i = 0; i < 36; ++i) {
    const double cost = Next()->tenant_name == "long" ? 300 : 100;
    tokens[Next()->tenant_name] += cost;
    Serve(cost);
  }
  EXPECT_NEAR(tokens["long"], tokens["short"], 300);
}

TEST_F(FairQueueTest, APauseGivesNoCreditAndNoPardon) {
  Sequence* kept = Add("a");
  kept->tenant->service = 1000;
  Sequence* late = Add("b");
  EXPECT_EQ(late->tenant->service, 1000) << "not a thousand tokens of credit";
  late->tenant->service = 5000;
  queue_.Remove(late);
  queue_.Leave(late);
  EXPECT_EQ(queue_.num_tenants(), 2) << "remembered while it is ahead";
  EXPECT_EQ(Add("b")->tenant->service, 5000);
}

TEST_F(FairQueueTest, TenantsThatAreGoneAreForgotten) {
  for (int i = 0; i < 1000; ++i) {
    Sequence* sequence = Add("tenant " + std::to_string(i));
    queue_.Remove(sequence);
    queue_.Leave(sequence);
  }
  EXPECT_EQ(queue_.num_tenants(), 0);
}

TEST_F(FairQueueTest, PreemptedOnesGoBeforeNewOnes) {
  Sequence* heavy = Add("a");
  heavy->tenant->service = 1e6;
  Add("b")->tenant->service = 0;
  heavy->num_preemptions = 1;
  EXPECT_EQ(Next(), heavy);
}

TEST_F(FairQueueTest, WaitingRaisesUpToTheMostUrgentClass) {
  Sequence* patient = Add("a", 3);
  Sequence* urgent = Add("b", 0);
  EXPECT_EQ(Next(), urgent);
  now_ += absl::Seconds(89);
  Sequence* later = Add("c", 0);
  later->tenant->service = patient->tenant->service = 10;
  EXPECT_EQ(Next(), urgent);
  queue_.Remove(urgent);
  queue_.Leave(urgent);
  EXPECT_EQ(Next(), later);
  now_ += absl::Seconds(1);
  EXPECT_EQ(Next(), patient) << "three classes up, and older";
  now_ += absl::Hours(5);
  later->tenant->service = 0;
  EXPECT_EQ(Next(), later) << "but not above the most urgent: there service decides";
}

TEST_F(FairQueueTest, SkipsWhatMayNotGo) {
  Sequence* held = Add("a");
  Sequence* other = Add("a");
  EXPECT_EQ(queue_.Next(now_, [&](const Sequence& s) { return &s != held; }), other);
  EXPECT_EQ(queue_.Next(now_, [](const Sequence&) { return false; }), nullptr);
}

}  // namespace
}  // namespace dovetail::coordinator
