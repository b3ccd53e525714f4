#include "machine.h"

#include "fault.h"

namespace lrfused::ptx {
namespace {

constexpr int32_t kWarp = 32;
constexpr int64_t kLongTurn = 10'000, kShortTurn = 100;  // instructions
constexpr int64_t kForever = 200'000'000;                // instructions of a launch
constexpr uint64_t kAligned = 16;                        // bytes to which shared memory is aligned
constexpr uint32_t kWholeWarp = 0xffffffff;              // the lanes that take part in a shuffle
constexpr uint32_t kLastLane = 31;                       // the last lane that a shuffle may read

enum class State : uint8_t { ready, waits_for_block, waits_for_warp, done };

struct Thread {
  Word* file = nullptr;
  int32_t next = 0;  // the next instruction
  State state = State::ready;
};

class Launch {
 public:
  Launch(Kernel& kernel, int32_t blocks, int32_t block, const std::vector<Argument>& arguments,
         std::vector<Region> regions, Random& random)
      : kernel_(kernel),
        block_(block),
        random_(random),
        order_(blocks * block),
        shared_(size_t(blocks) * shared_size() + kAligned),
        files_(size_t(blocks * block) * kernel.file.size()),
        threads_(blocks * block),
        memory_(all(std::move(regions), arguments, blocks), order_) {
    for (int32_t t = 0; t < blocks * block; ++t) {
      threads_[t].file = files_.data() + size_t(t) * kernel.file.size();
      std::copy(kernel.file.begin(), kernel.file.end(), threads_[t].file);
      put(t, "%tid.x", Word(t % block));
      put(t, "%ntid.x", Word(block));
      put(t, "%ctaid.x", Word(t / block));
      put(t, "%nctaid.x", Word(blocks));
      for (size_t i = 0; i < arguments.size(); ++i)
        put(t, kernel.parameters[i].name, reinterpret_cast<Word>(arguments[i].data));
      uint64_t at = shared_of(t / block);
      for (const Variable& v : kernel.shared) {
        put(t, v.name, at);
        at += rounded(v.size);
      }
      ready_.push_back(t);
    }
  }

  void run() {
    int64_t left = kForever;
    while (!ready_.empty()) {
      const size_t i = size_t(random_.below(int64_t(ready_.size())));
      const int32_t t = ready_[i];
      const int64_t turn = 1 + random_.below(random_.one_in(8) ? kLongTurn : kShortTurn);
      for (int64_t n = 0; n < turn && threads_[t].state == State::ready; ++n, --left) step(t);
      if (threads_[t].state != State::ready) {
        ready_[i] = ready_.back();
        ready_.pop_back();
        release(t);
      }
      if (left < 0) throw Fault("the launch does not end");
    }
    for (size_t t = 0; t < threads_.size(); ++t)
      if (threads_[t].state != State::done)
        throw Fault("deadlock: " + where(int32_t(t)) + " waits for others, which do not come");
  }

 private:
  static uint64_t rounded(uint64_t size) { return (size + kAligned - 1) / kAligned * kAligned; }
  size_t shared_size() const {
    size_t size = 0;
    for (const Variable& v : kernel_.shared) size += rounded(v.size);
    return size;
  }
  uint64_t shared_of(int32_t block) const {
    return rounded(reinterpret_cast<uint64_t>(shared_.data())) + size_t(block) * shared_size();
  }

  std::vector<Region> all(std::vector<Region> regions, const std::vector<Argument>& arguments,
                          int32_t blocks) const {
    if (arguments.size() != kernel_.parameters.size()) throw Fault("another number of arguments");
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].size != kernel_.parameters[i].size)
        throw Fault("argument " + std::to_string(i) + " has another size");
      const uint64_t begin = reinterpret_cast<uint64_t>(arguments[i].data);
      regions.push_back(
          {begin, begin + arguments[i].size, Space::param, 0, "argument " + std::to_string(i)});
    }
    for (int32_t b = 0; b < blocks; ++b) {
      uint64_t begin = shared_of(b);
      for (const Variable& v : kernel_.shared) {
        regions.push_back({begin, begin + v.size, Space::shared, 1, "shared memory"});
        begin += rounded(v.size);
      }
    }
    return regions;
  }

  void put(int32_t t, const std::string& name, Word value) {
    const auto place = kernel_.places.find(name);
    if (place != kernel_.places.end()) threads_[t].file[place->second] = value;
  }

  std::string where(int32_t t) const {
    return "thread " + std::to_string(t % block_) + " of block " + std::to_string(t / block_) +
           ", line " + std::to_string(kernel_.code[threads_[t].next].line);
  }

  void step(int32_t t) {
    Thread& thread = threads_[t];
    Instruction& i = kernel_.code[thread.next];
    i.has_run = true;
    if (i.guard >= 0 && get<bool>(thread.file, i.guard) == i.unless) {
      ++thread.next;
      return;
    }
    if (i.kind == Kind::compute) {  // the most frequent kind
      i.compute(thread.file, i.at.data());
      ++thread.next;
      return;
    }
    try {
      act(t, i);
    } catch (const Fault& fault) {
      throw Fault(where(t) + ": " + fault.what());
    }
  }

  void act(int32_t t, const Instruction& i) {
    Thread& thread = threads_[t];
    const uint64_t address = thread.file[i.address] + uint64_t(i.offset);
    switch (i.kind) {
      case Kind::branch:
        thread.next = i.target;
        return;
      case Kind::leave:
        thread.state = State::done;
        return;
      case Kind::load:
        memory_.check_load(t, i.space, address, i.size * i.count);
        for (int32_t k = 0; k < i.count; ++k)
          load(thread.file, i, k, address + uint64_t(k * i.size));
        break;
      case Kind::store:
        memory_.check_store(t, i.space, address, i.size * i.count);
        for (int32_t k = 0; k < i.count; ++k)
          memcpy(reinterpret_cast<void*>(address + uint64_t(k * i.size)), thread.file + i.at[k],
                 size_t(i.size));
        break;
      case Kind::increment:
        memory_.check_atomic(i.space, address, i.size);
        order_.atomic(t, address);
        increment(thread.file, i, address);
        break;
      case Kind::fence:
        order_.fence(t);
        break;
      case Kind::barrier:
      case Kind::vote:
        thread.state = State::waits_for_block;
        return;
      case Kind::warp_barrier:
      case Kind::shuffle:
        thread.state = State::waits_for_warp;
        return;
      case Kind::compute:
      case Kind::nothing:
        break;
    }
    ++thread.next;
  }

  static void load(Word* file, const Instruction& i, int32_t k, uint64_t address) {
    Word bits = 0;
    memcpy(&bits, reinterpret_cast<const void*>(address), size_t(i.size));
    const int shift = 64 - 8 * i.size;
    file[i.at[k]] = i.is_signed ? Word(int64_t(bits << shift) >> shift) : bits;
  }

  static void increment(Word* file, const Instruction& i, uint64_t address) {
    const uint32_t most = get<uint32_t>(file, i.at[1]);
    uint32_t* word = reinterpret_cast<uint32_t*>(address);
    const uint32_t before = *word;
    *word = before >= most ? 0 : before + 1;
    set<uint32_t>(file, i.at[0], before);
  }

  // Resume the threads that waited for t, if it was the last one.
  void release(int32_t t) {
    const State state = threads_[t].state;
    if (state == State::done) return;
    const int32_t count = state == State::waits_for_block ? block_ : kWarp;
    const int32_t first = t / count * count;
    const Instruction& i = kernel_.code[threads_[t].next];
    for (int32_t other = first; other < first + count; ++other) {
      if (threads_[other].state != state) return;
      if (threads_[other].next != threads_[t].next)
        throw Fault("threads wait at two places: " + where(t) + ", " + where(other));
    }
    if (i.kind == Kind::vote) vote(first, i);
    if (i.kind == Kind::shuffle)  // it orders no accesses
      shuffle(first, i);
    else
      order_.barrier(first, count);
    for (int32_t other = first; other < first + count; ++other) {
      threads_[other].state = State::ready;
      ++threads_[other].next;
      ready_.push_back(other);
    }
  }

  void vote(int32_t first, const Instruction& i) {
    bool any = false;
    for (int32_t t = first; t < first + block_; ++t) any |= get<bool>(threads_[t].file, i.at[2]);
    for (int32_t t = first; t < first + block_; ++t) set<bool>(threads_[t].file, i.at[0], any);
  }

  // at: the result, whether it is from another lane, the source, the distance, bounds, lanes.
  void shuffle(int32_t first, const Instruction& i) {
    uint32_t before[kWarp];
    for (int32_t lane = 0; lane < kWarp; ++lane)
      before[lane] = get<uint32_t>(threads_[first + lane].file, i.at[2]);
    for (int32_t lane = 0; lane < kWarp; ++lane) {
      Word* file = threads_[first + lane].file;
      if (get<uint32_t>(file, i.at[5]) != kWholeWarp || get<uint32_t>(file, i.at[4]) != kLastLane)
        throw Fault("a shuffle of less than a warp: " + where(first + lane));
      const uint32_t by = get<uint32_t>(file, i.at[3]);
      const uint32_t from = i.down ? uint32_t(lane) + by : by;
      set<bool>(file, i.at[1], from <= kLastLane);
      set<uint32_t>(file, i.at[0], before[from <= kLastLane ? from : uint32_t(lane)]);
    }
  }

  Kernel& kernel_;
  const int32_t block_;  // threads
  Random& random_;
  Order order_;
  std::vector<char> shared_;
  std::vector<Word> files_;
  std::vector<Thread> threads_;
  Memory memory_;
  std::vector<int32_t> ready_;
};

}  // namespace

void launch(Kernel& kernel, int32_t blocks, int32_t threads, const std::vector<Argument>& arguments,
            std::vector<Region> regions, Random& random) {
  Launch(kernel, blocks, threads, arguments, std::move(regions), random).run();
}

}  // namespace lrfused::ptx
