#include <algorithm>
#include <cmath>
#include <limits>

#include "robo_rlft/error.hpp"
#include "robo_rlft/gemv.hpp"
#include "robo_rlft/policy.hpp"

namespace robo_rlft {
namespace {

// Vectors are read in whole lanes, so each buffer starts on a lane and ends on one.
class Buffer {
 public:
  explicit Buffer(int n = 0) : size_(padded(std::max(n, 1))), data_(static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float)))) {
    if (!data_) throw std::bad_alloc();
    std::fill_n(data_.get(), size_, 0.0f);
  }
  float* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const noexcept { std::free(p); }
  };
  std::size_t size_;
  std::unique_ptr<float[], Free> data_;
};

const Tensor& tensor(const Tensors& all, const std::string& name, std::vector<std::int64_t> shape) {
  const auto found = all.find(name);
  if (found == all.end()) throw Error("the native network lacks the tensor '" + name + "'");
  if (found->second.shape != shape) throw Error("the tensor '" + name + "' of the native network has another shape than the bundle says");
  for (const float v : found->second.data) {
    if (std::isnan(v)) throw Error("the tensor '" + name + "' of the native network holds NaN");
  }
  return found->second;
}

struct Layer {
  PackedMatrix weight;
  Buffer bias, output;
};

class NativePolicy final : public Policy {
 public:
  explicit NativePolicy(const Bundle& bundle) : policy_(bundle.policy), spec_(*bundle.native), width_(bundle.action.size()) {
    const Tensors tensors = read_safetensors(bundle.weights);
    flow_ = spec_.kind == "flow_mlp";
    if (!flow_ && spec_.kind != "mlp") throw Error("native.kind '" + spec_.kind + "' is unknown: expected mlp or flow_mlp");
    activation_ = activation(spec_.activation);
    chunk_ = policy_.chunk * width_;
    condition_ = policy_.obs_horizon * policy_.frame_width();
    observation(tensors);
    layers(tensors);
    action(tensors);
  }

  bool infer(const PolicyInput& in, float* actions) noexcept override {
    condition(in.observation);
    // What the observation adds to the first layer is the same in every step.
    condition_weight_.multiply(normalised_.get(), zero_.get(), from_condition_.get());
    if (flow_) {
      std::copy_n(in.noise, chunk_, x_.get());
      for (int k = 0; k < spec_.steps; ++k) euler(k);
    } else {
      bias(0, from_condition_.get(), first_.get());
      std::copy_n(evaluate(), chunk_, x_.get());
      clip(x_.get(), chunk_, static_cast<float>(spec_.latent_clip));
    }
    answer(actions);
    return true;
  }

  const char* name() const noexcept override { return "native"; }
  bool allocation_free() const noexcept override { return true; }

 private:
  void observation(const Tensors& tensors) {
    for (std::size_t j = 0; j < policy_.observation.size(); ++j) {
      const auto width = policy_.observation[j].width;
      const std::string name = "observation." + std::to_string(j);
      offset_.push_back(tensor(tensors, name + ".offset", {width}).data);
      scale_.push_back(tensor(tensors, name + ".scale", {width}).data);
    }
    normalised_ = Buffer(condition_);
  }

  void layers(const Tensors& tensors) {
    const auto time = tensors.find("time");
    time_width_ = time == tensors.end() || time->second.shape.size() != 2 ? 0 : static_cast<int>(time->second.shape[1]);
    const int seen = flow_ ? chunk_ : 0;
    int inputs = seen + time_width_ + condition_;
    for (int i = 0; tensors.count("layers." + std::to_string(i) + ".weight") != 0; ++i) {
      const std::string name = "layers." + std::to_string(i);
      const auto& shape = tensors.at(name + ".weight").shape;
      const int rows = shape.empty() ? 0 : static_cast<int>(shape[0]);
      const Tensor& weight = tensor(tensors, name + ".weight", {rows, inputs});
      Layer layer{PackedMatrix(weight.data.data(), rows, i == 0 ? seen : inputs, inputs), Buffer(rows), Buffer(rows)};
      std::copy_n(tensor(tensors, name + ".bias", {rows}).data.data(), rows, layer.bias.get());
      if (i == 0) first_layer(tensors, weight.data.data(), rows, seen, inputs);
      layers_.push_back(std::move(layer));
      inputs = rows;
    }
    if (layers_.empty() || inputs != chunk_) throw Error("the native network does not end in chunk x actions entries");
    first_ = Buffer(layers_[0].weight.rows());
    x_ = Buffer(chunk_);
  }

  // The first layer's columns in three parts: the chunk changes every step, the time is a table, the condition changes per call.
  void first_layer(const Tensors& tensors, const float* weight, int rows, int seen, int inputs) {
    condition_weight_ = PackedMatrix(weight + seen + time_width_, rows, condition_, inputs);
    from_condition_ = Buffer(rows);
    zero_ = Buffer(rows);
    const Tensor* time = time_width_ == 0 ? nullptr : &tensor(tensors, "time", {spec_.steps, time_width_});
    for (int k = 0; k < spec_.steps; ++k) {
      step_bias_.emplace_back(rows);
      for (int r = 0; r < rows; ++r) {
        double sum = tensor(tensors, "layers.0.bias", {rows}).data[static_cast<std::size_t>(r)];
        for (int c = 0; c < time_width_; ++c) {
          sum += double{weight[static_cast<std::ptrdiff_t>(r) * inputs + seen + c]} * double{time->data[static_cast<std::size_t>(k * time_width_ + c)]};
        }
        step_bias_.back().get()[r] = static_cast<float>(sum);
      }
    }
  }

  void action(const Tensors& tensors) {
    action_offset_ = tensor(tensors, "action.offset", {width_}).data;
    action_scale_ = tensor(tensors, "action.scale", {width_}).data;
    const auto bound = [&](const char* name, float otherwise) {
      return tensors.count(name) == 0 ? std::vector<float>(static_cast<std::size_t>(width_), otherwise) : tensor(tensors, name, {width_}).data;
    };
    low_ = bound("action.low", -std::numeric_limits<float>::infinity());
    high_ = bound("action.high", std::numeric_limits<float>::infinity());
  }

  static void clip(float* x, int n, float bound) noexcept {
    if (!std::isfinite(bound)) return;
    for (int i = 0; i < n; ++i) x[i] = x[i] < -bound ? -bound : x[i] > bound ? bound : x[i];
  }

  void condition(const float* seen) noexcept {
    float* out = normalised_.get();
    for (std::size_t j = 0; j < offset_.size(); ++j) {
      const int width = policy_.observation[j].width;
      const int entries = width * policy_.obs_horizon;
      for (int i = 0; i < entries; ++i) {
        const auto c = static_cast<std::size_t>(i % width);
        out[i] = (seen[i] - offset_[j][c]) / scale_[j][c];
      }
      clip(out, entries, static_cast<float>(spec_.observation_clip[j]));
      out += entries, seen += entries;
    }
  }

  void bias(int k, const float* from_condition, float* out) const noexcept {
    const float* step = step_bias_[static_cast<std::size_t>(k)].get();
    const int n = layers_[0].weight.padded_rows();
    for (int i = 0; i < n; ++i) out[i] = step[i] + from_condition[i];
  }

  // The network at x_ with the first layer's bias in first_.
  const float* evaluate() noexcept {
    const float *input = x_.get(), *bias = first_.get();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      Layer& layer = layers_[i];
      layer.weight.multiply(input, i == 0 ? bias : layer.bias.get(), layer.output.get());
      if (i + 1 < layers_.size()) activate(activation_, layer.output.get(), layer.weight.padded_rows());
      input = layer.output.get();
    }
    return input;
  }

  // x_{k+1} = x_k + v(x_k, t_k) / K
  void euler(int k) noexcept {
    bias(k, from_condition_.get(), first_.get());
    const float* velocity = evaluate();
    float* x = x_.get();
    const auto steps = static_cast<float>(spec_.steps);
    for (int i = 0; i < chunk_; ++i) x[i] += velocity[i] / steps;
    clip(x, chunk_, static_cast<float>(spec_.latent_clip));
  }

  void answer(float* actions) const noexcept {
    if (spec_.bounded) clip(x_.get(), chunk_, 1.0f);
    for (int i = 0; i < chunk_; ++i) {
      const auto c = static_cast<std::size_t>(i % width_);
      const float y = x_.get()[i] * action_scale_[c] + action_offset_[c];
      actions[i] = y < low_[c] ? low_[c] : y > high_[c] ? high_[c] : y;  // NaN passes, and is caught by who asked
    }
  }

  PolicySpec policy_;
  NativeSpec spec_;
  int width_, chunk_ = 0, condition_ = 0, time_width_ = 0;
  bool flow_ = false;
  Activation activation_ = Activation::None;
  std::vector<std::vector<float>> offset_, scale_;
  std::vector<float> action_offset_, action_scale_, low_, high_;
  std::vector<Layer> layers_;
  std::vector<Buffer> step_bias_;
  PackedMatrix condition_weight_;
  Buffer normalised_, from_condition_, zero_, first_, x_;
};

}  // namespace

std::unique_ptr<Policy> make_native_policy(const Bundle& bundle) {
  if (!bundle.native) throw Error("the bundle has no native network that this runtime computes (it takes no prefix and no layer norm): use the backend onnx");
  return std::make_unique<NativePolicy>(bundle);
}

}  // namespace robo_rlft
