#include <dlfcn.h>

#include <algorithm>
#include <set>

#include "onnx_api.hpp"
#include "robo_rlft/error.hpp"
#include "robo_rlft/policy.hpp"

namespace robo_rlft {
namespace {

using namespace onnx;  // NOLINT: the table's names, in this file only

const ApiBase* load_base(const std::string& library) {
  if (library.empty()) throw Error("the backend onnx needs ONNX Runtime: name its library in ROBO_RLFT_ONNXRUNTIME");
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error("cannot load ONNX Runtime from " + library + ": " + dlerror());
  using GetBase = const ApiBase* (*)();
  const auto get = reinterpret_cast<GetBase>(dlsym(handle, "OrtGetApiBase"));
  if (get == nullptr) throw Error(library + " is no library of ONNX Runtime");
  return get();
}

// An input or output of the model: a buffer of ours that the model reads or writes in place.
struct Slot {
  std::string name;
  std::vector<float> data;
  Value* value = nullptr;
};

class OnnxPolicy final : public Policy {
 public:
  OnnxPolicy(const Bundle& bundle, const std::string& library) : spec_(bundle.policy) {
    const ApiBase* base = load_base(library);
    api_ = base->get_api(kApiVersion);
    if (api_ == nullptr) throw Error("ONNX Runtime " + std::string(base->version()) + " is too old: version 1.12 or later is needed");
    try {
      open(bundle);
      slots(bundle);
      check_names();
    } catch (...) {
      release();
      throw;
    }
  }

  ~OnnxPolicy() override { release(); }
  OnnxPolicy(const OnnxPolicy&) = delete;
  OnnxPolicy& operator=(const OnnxPolicy&) = delete;

  bool infer(const PolicyInput& in, float* actions) noexcept override {
    const float* seen = in.observation;
    for (std::size_t j = 0; j < spec_.observation.size(); ++j) seen = fill(inputs_[j], seen);
    std::size_t next = spec_.observation.size();
    fill(inputs_[next++], in.noise);
    if (spec_.guidance) fill(inputs_[next++], &in.guidance);
    if (spec_.prefix > 0) {
      fill(inputs_[next++], in.prefix);
      fill(inputs_[next++], &in.delay);
    }
    Status* status = Run::call(api_, session_, nullptr, names_.data(), values_.data(), values_.size(), &output_name_, 1, &output_.value);
    if (status != nullptr) {
      ReleaseStatus::call(api_, status);
      return false;
    }
    std::copy(output_.data.begin(), output_.data.end(), actions);
    return true;
  }

  const char* name() const noexcept override { return "onnx"; }
  bool allocation_free() const noexcept override { return false; }

 private:
  static const float* fill(Slot& slot, const float* from) noexcept {
    std::copy_n(from, slot.data.size(), slot.data.begin());
    return from + slot.data.size();
  }

  void check(Status* status) const {
    if (status == nullptr) return;
    const std::string message = GetErrorMessage::call(api_, status);
    ReleaseStatus::call(api_, status);
    throw Error("ONNX Runtime: " + message);
  }

  void open(const Bundle& bundle) {
    check(CreateEnv::call(api_, kWarning, "robo_rlft", &env_));
    check(CreateSessionOptions::call(api_, &options_));
    check(SetSessionLogSeverityLevel::call(api_, options_, kError));
    check(SetSessionGraphOptimizationLevel::call(api_, options_, kAllOptimisations));
    // One thread: its own pool would spin beside the control thread.
    check(SetIntraOpNumThreads::call(api_, options_, 1));
    check(SetInterOpNumThreads::call(api_, options_, 1));
    check(CreateSessionFromArray::call(api_, env_, bundle.model.data(), bundle.model.size(), options_, &session_));
    check(CreateCpuMemoryInfo::call(api_, kArenaAllocator, kDefaultMemory, &memory_));
  }

  void add(Slot& slot, const std::string& name, std::vector<std::int64_t> shape) {
    std::size_t count = 1;
    for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
    slot.name = name;
    slot.data.assign(count, 0.0f);
    check(CreateTensorWithDataAsOrtValue::call(api_, memory_, slot.data.data(), count * sizeof(float), shape.data(), shape.size(), kFloat, &slot.value));
  }

  void slots(const Bundle& bundle) {
    const std::int64_t width = bundle.action.size();
    inputs_.resize(spec_.observation.size() + 1 + (spec_.guidance ? 1 : 0) + (spec_.prefix > 0 ? 2 : 0));
    std::size_t next = 0;
    for (const auto& key : spec_.observation) add(inputs_[next++], "observation/" + key.key, {1, spec_.obs_horizon, key.width});
    add(inputs_[next++], "noise", {1, spec_.chunk, width});
    if (spec_.guidance) add(inputs_[next++], "guidance", {1, 1});
    if (spec_.prefix > 0) {
      add(inputs_[next++], "prefix", {1, spec_.prefix, width});
      add(inputs_[next++], "delay", {1, 1});
    }
    add(output_, "action", {1, spec_.chunk, width});
    output_name_ = output_.name.c_str();
    for (const Slot& slot : inputs_) {
      names_.push_back(slot.name.c_str());
      values_.push_back(slot.value);
    }
  }

  void check_names() const {
    std::size_t count = 0;
    check(SessionGetInputCount::call(api_, session_, &count));
    Allocator* allocator = nullptr;
    check(GetAllocatorWithDefaultOptions::call(api_, &allocator));
    std::set<std::string> offered, wanted(names_.begin(), names_.end());
    for (std::size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check(SessionGetInputName::call(api_, session_, i, allocator, &name));
      offered.insert(name);
      check(AllocatorFree::call(api_, allocator, name));
    }
    if (offered != wanted) throw Error("the model's inputs are not those of runtime.json: export the bundle again");
  }

  void release() noexcept {
    for (Slot& slot : inputs_) {
      if (slot.value != nullptr) ReleaseValue::call(api_, slot.value);
    }
    if (output_.value != nullptr) ReleaseValue::call(api_, output_.value);
    if (memory_ != nullptr) ReleaseMemoryInfo::call(api_, memory_);
    if (session_ != nullptr) ReleaseSession::call(api_, session_);
    if (options_ != nullptr) ReleaseSessionOptions::call(api_, options_);
    if (env_ != nullptr) ReleaseEnv::call(api_, env_);
  }

  PolicySpec spec_;
  const Table* api_ = nullptr;
  Env* env_ = nullptr;
  SessionOptions* options_ = nullptr;
  Session* session_ = nullptr;
  MemoryInfo* memory_ = nullptr;
  std::vector<Slot> inputs_;
  Slot output_;
  const char* output_name_ = nullptr;
  std::vector<const char*> names_;
  std::vector<const Value*> values_;
};

}  // namespace

std::unique_ptr<Policy> make_onnx_policy(const Bundle& bundle, const std::string& library) {
  return std::make_unique<OnnxPolicy>(bundle, library);
}

}  // namespace robo_rlft
