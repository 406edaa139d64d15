// Snapshots and sharing of recurrent states against a model of them that keeps everything.
#include "kv/states.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace snug {
namespace {

StateLayout Small(uint32_t snapshots) { return {{5, 0, 16}, 3, snapshots}; }

// The state after a history is marked with a number of its own.
void Write(StateStore& store, uint32_t sequence, float mark) {
  store.next(sequence, 0)[4] = mark;
  store.next(sequence, 2)[0] = mark;
}

float Read(const StateStore& store, uint32_t sequence) {
  const float* first = store.committed(sequence, 0);
  if (first == nullptr) return 0;
  EXPECT_EQ(first[4], store.committed(sequence, 2)[0]);
  return first[4];
}

TEST(StateStore, ReservesWhatItPlansAndNothingWithoutStates) {
  Ledger ledger(kMiB);
  auto store = StateStore::Create(Small(2), ledger);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(ledger.snapshot().total, StateStore::PoolBytes(Small(2)));
  EXPECT_EQ(Small(2).slots(), 12u);
  const StateLayout none{{0, 0}, 3, 2};
  EXPECT_EQ(StateStore::PoolBytes(none), 0u);
  auto empty = StateStore::Create(none, ledger);
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->empty());
  EXPECT_EQ(empty->Held(0, 77), 77u);  // nothing limits what is held
  Ledger poor(StateStore::PoolBytes(Small(2)) - 1);
  EXPECT_FALSE(StateStore::Create(Small(2), poor).ok());
}

TEST(StateStore, AStepThatIsNotCommittedLeavesNoTrace) {
  Ledger ledger(kMiB);
  auto store = StateStore::Create(Small(1), ledger);
  ASSERT_TRUE(store.ok());
  store->Extend(0);
  Write(*store, 0, 3);
  EXPECT_EQ(Read(*store, 0), 0);
  store->Commit(0, 3);
  store->Extend(0);
  Write(*store, 0, 9);
  EXPECT_EQ(Read(*store, 0), 3);
  store->Extend(0);
  Write(*store, 0, 4);
  store->Commit(0, 1);
  EXPECT_EQ(Read(*store, 0), 4);
  EXPECT_EQ(store->Held(0, 3), 3u);  // the end of a chunk
}

TEST(StateStore, KeepsTheNewestAndThinsTheOthers) {
  Ledger ledger(kMiB);
  auto store = StateStore::Create(Small(3), ledger);
  ASSERT_TRUE(store.ok());
  for (int i = 0; i < 8; ++i) {  // a prompt in chunks of 100
    store->Extend(0);
    store->Commit(0, 100);
  }
  for (uint32_t length = 803; length <= 860; length += 3) {  // then drafts of 3
    store->Extend(0);
    store->Commit(0, 3);
    EXPECT_EQ(store->Held(0, length), length);
    EXPECT_EQ(store->Held(0, length - 1), length - 3);
  }
  // What is left beside the newest lies apart, in the prompt.
  const uint32_t second = store->Held(0, 840), third = store->Held(0, second - 1);
  EXPECT_GE(second, 200u);
  EXPECT_LE(second, 800u);
  EXPECT_GE(third, 100u);
}

TEST(StateStore, KeepsNothingWithoutRoom) {
  Ledger ledger(kMiB);
  auto store = StateStore::Create(Small(0), ledger);
  ASSERT_TRUE(store.ok());
  for (int i = 0; i < 5; ++i) {
    store->Extend(1);
    store->Commit(1, 10);
  }
  EXPECT_EQ(store->Held(1, 50), 50u);
  EXPECT_EQ(store->Held(1, 49), 0u);
  store->Restore(1, 0);
  EXPECT_EQ(store->committed(1, 0), nullptr);
}

// Random steps, rollbacks, sharing and clearing: what is held is what was written, slots never run
// out, and none is lost.
TEST(StateStore, RandomHistories) {
  for (const uint32_t snapshots : {0u, 1u, 2u, 5u}) {
    Ledger ledger(kMiB);
    auto store = StateStore::Create(Small(snapshots), ledger);
    ASSERT_TRUE(store.ok());
    std::mt19937 rng(snapshots + 1);
    // By sequence: the mark at every position that a step ended at.
    std::map<uint32_t, float> marks[3];
    float mark = 0;
    for (auto& m : marks) m[0] = 0;
    for (int i = 0; i < 4000; ++i) {
      const uint32_t s = rng() % 3;
      const uint32_t length = marks[s].rbegin()->first;
      switch (rng() % 8) {
        case 0: {
          const uint32_t back = store->Held(s, length - std::min<uint32_t>(length, rng() % 40));
          store->Restore(s, back);
          ASSERT_EQ(marks[s].count(back), 1u);
          marks[s].erase(marks[s].upper_bound(back), marks[s].end());
          break;
        }
        case 1: {
          const uint32_t from = (s + 1) % 3;
          const uint32_t at = store->Held(from, rng() % 600);
          store->Clear(s);
          store->Share(from, s, at);
          ASSERT_EQ(marks[from].count(at), 1u);
          marks[s] = marks[from];
          marks[s].erase(marks[s].upper_bound(at), marks[s].end());
          break;
        }
        case 2:
          store->Extend(s);  // a step that fails
          Write(*store, s, -1);
          break;
        default: {
          const uint32_t n = rng() % 3 == 0 ? 1 + rng() % 100 : 1;
          store->Extend(s);
          Write(*store, s, ++mark);
          store->Commit(s, n);
          marks[s][length + n] = mark;
        }
      }
      for (uint32_t q = 0; q < 3; ++q) ASSERT_EQ(Read(*store, q), marks[q].rbegin()->second) << i;
      ASSERT_LE(store->held_bytes(), StateStore::PoolBytes(Small(snapshots)));
    }
    for (uint32_t s = 0; s < 3; ++s) {
      store->Extend(s);
      store->Commit(s, 1);
      store->Clear(s);
    }
    EXPECT_EQ(store->held_bytes(), 0u);
  }
}

}  // namespace
}  // namespace snug
