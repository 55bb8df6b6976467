// Small bundles written by the tests, so that they need nothing but this folder. Their golden actions are computed here with
// plain loops in float64.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "robo_rlft/files.hpp"

namespace synthetic {

using robo_rlft::Tensor;
using robo_rlft::Tensors;

struct Shape {
  int joints = 2, chunk = 8, execute = 4, width = 5, horizon = 2, steps = 3, time = 4;
  std::vector<int> hidden = {24, 40};
  double rate_hz = 50, velocity = 2, acceleration = 20, hold_s = 0.2, ramp_s = 0.5;
  std::string meaning = "joint_position";
  double gain = 1.0;  // of the actions
};

inline std::string bytes_of(const Tensor& t) { return {reinterpret_cast<const char*>(t.data.data()), t.data.size() * sizeof(float)}; }

inline std::string shape_list(const Tensor& t) {
  std::string out;
  for (const auto extent : t.shape) out += (out.empty() ? "" : ", ") + std::to_string(extent);
  return out;
}

inline std::string safetensors(const Tensors& tensors) {
  std::string header = "{", body;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t start = body.size();
    body += bytes_of(tensor);
    header += (header.size() > 1 ? "," : "") + std::string("\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape_list(tensor) + "],\"data_offsets\":[" +
              std::to_string(start) + "," + std::to_string(body.size()) + "]}";
  }
  header += "}";
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + body;
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline std::string npz(const Tensors& arrays) {
  std::string out, directory;
  for (const auto& [name, tensor] : arrays) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape_list(tensor) + ",), }\n";
    std::string file = "\x93NUMPY";
    file += '\1', file += '\0';
    put(file, static_cast<std::uint16_t>(header.size()));
    file += header + bytes_of(tensor);
    const auto size = static_cast<std::uint32_t>(file.size()), at = static_cast<std::uint32_t>(out.size());
    const std::string entry = name + ".npy";
    std::string common;
    for (const std::uint16_t v : {20, 0, 0, 0, 0}) put(common, v);
    put(common, std::uint32_t{0}), put(common, size), put(common, size);
    put(common, static_cast<std::uint16_t>(entry.size())), put(common, std::uint16_t{0});
    out += std::string("PK\3\4", 4) + common + entry + file;
    directory += std::string("PK\1\2", 4) + std::string(2, '\0') + common + std::string(10, '\0');
    put(directory, at);
    directory += entry;
  }
  const auto count = static_cast<std::uint16_t>(arrays.size());
  std::string end("PK\5\6\0\0\0\0", 8);
  put(end, count), put(end, count), put(end, static_cast<std::uint32_t>(directory.size())), put(end, static_cast<std::uint32_t>(out.size())), put(end, std::uint16_t{0});
  return out + directory + end;
}

class Network {
 public:
  explicit Network(const Shape& shape) : shape_(shape) {
    const int size = shape.chunk * shape.joints;
    int inputs = size + shape.time + shape.horizon * shape.width, index = 0;
    std::vector<int> widths = shape.hidden;
    widths.push_back(size);
    for (const int rows : widths) {
      const std::string name = "layers." + std::to_string(index++);
      tensors[name + ".weight"] = random({rows, inputs}, 1.0 / std::sqrt(inputs));
      tensors[name + ".bias"] = random({rows}, 0.1);
      inputs = rows;
    }
    layers_ = index;
    tensors["time"] = random({shape.steps, shape.time}, 1.0);
    tensors["observation.0.offset"] = random({shape.width}, 1.0);
    tensors["observation.0.scale"] = constant(shape.width, 1.5f);
    tensors["action.offset"] = random({shape.joints}, 0.1);
    tensors["action.scale"] = constant(shape.joints, static_cast<float>(shape.gain));
  }

  // Euler's method on the flow, silu between the layers, in float64.
  std::vector<double> act(const float* observation, const float* noise) const {
    const Shape& s = shape_;
    std::vector<double> x(noise, noise + s.chunk * s.joints), cond;
    for (int i = 0; i < s.horizon * s.width; ++i) cond.push_back((observation[i] - at("observation.0.offset", i % s.width)) / at("observation.0.scale", i % s.width));
    for (int k = 0; k < s.steps; ++k) {
      std::vector<double> in = x;
      for (int i = 0; i < s.time; ++i) in.push_back(at("time", k * s.time + i));
      in.insert(in.end(), cond.begin(), cond.end());
      const auto velocity = network(in);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] += velocity[i] / s.steps;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      const int a = static_cast<int>(i) % s.joints;
      x[i] = std::min(1.0, std::max(-1.0, x[i])) * at("action.scale", a) + at("action.offset", a);
    }
    return x;
  }

  Tensor random(std::vector<std::int64_t> shape, double scale) {
    std::size_t count = 1;
    for (const auto extent : shape) count *= static_cast<std::size_t>(extent);
    Tensor out{std::move(shape), std::vector<float>(count)};
    for (float& v : out.data) v = static_cast<float>(scale * normal_(generator_));
    return out;
  }

  Tensors tensors;

 private:
  static Tensor constant(int n, float value) { return {{n}, std::vector<float>(static_cast<std::size_t>(n), value)}; }
  double at(const std::string& name, int i) const { return double{tensors.at(name).data[static_cast<std::size_t>(i)]}; }

  std::vector<double> network(std::vector<double> x) const {
    for (int l = 0; l < layers_; ++l) {
      const std::string name = "layers." + std::to_string(l);
      const auto rows = static_cast<std::size_t>(tensors.at(name + ".bias").data.size());
      std::vector<double> y(rows);
      for (std::size_t r = 0; r < rows; ++r) {
        y[r] = at(name + ".bias", static_cast<int>(r));
        for (std::size_t c = 0; c < x.size(); ++c) y[r] += at(name + ".weight", static_cast<int>(r * x.size() + c)) * x[c];
        if (l + 1 < layers_) y[r] /= 1.0 + std::exp(-y[r]);
      }
      x = y;
    }
    return x;
  }

  Shape shape_;
  int layers_ = 0;
  std::mt19937_64 generator_{7};
  std::normal_distribution<double> normal_;
};

inline void write(const std::string& path, const std::string& data) { std::ofstream(path, std::ios::binary) << data; }

inline std::string list(int n, double value) {
  std::string out = "[";
  for (int i = 0; i < n; ++i) out += (i ? ", " : "") + std::to_string(value);
  return out + "]";
}

inline std::string names(int n) {
  std::string out = "[";
  for (int i = 0; i < n; ++i) out += (i ? ", " : "") + std::string("\"joint_") + std::to_string(i) + "\"";
  return out + "]";
}

inline std::string description(const Shape& s, const std::map<std::string, std::string>& files) {
  std::string hashes;
  for (const auto& [name, data] : files) hashes += (hashes.empty() ? "" : ", ") + std::string("\"") + name + "\": \"" + robo_rlft::sha256(data) + "\"";
  const int n = s.joints;
  const auto number = [](double v) { return std::to_string(v); };
  return "{\"format\": \"robo_rlft.runtime\", \"version\": 1, \"robot\": {\"env_id\": \"Toy\", \"rate_hz\": " + number(s.rate_hz) + "},\n\"action\": {\"names\": " + names(n) +
         ", \"low\": null, \"high\": null, \"meaning\": \"" + s.meaning + "\", \"scale\": " + list(n, 1) + ", \"offset\": " + list(n, 0) + "},\n\"joints\": {\"names\": " + names(n) +
         ", \"position_low\": " + list(n, -1) + ", \"position_high\": " + list(n, 1) + ", \"velocity\": " + list(n, s.velocity) + ", \"acceleration\": " + list(n, s.acceleration) +
         ", \"effort\": " + list(n, 10) + ", \"default\": " + list(n, 0.25) + ", \"stiffness\": " + list(n, 50) + ", \"damping\": " + list(n, 2) +
         "},\n\"policy\": {\"file\": \"policy.onnx\", \"rate_hz\": " + number(s.rate_hz / s.execute) + ", \"chunk\": " + std::to_string(s.chunk) + ", \"execute\": " + std::to_string(s.execute) +
         ", \"obs_horizon\": " + std::to_string(s.horizon) + ", \"observation\": [{\"key\": \"policy\", \"width\": " + std::to_string(s.width) +
         "}], \"noise\": \"standard_normal\", \"guidance\": null, \"prefix\": 0}, \"residual\": null,\n\"timing\": {\"latency_budget_s\": 0.05, \"observation_timeout_s\": 0.06, \"policy_timeout_s\": " +
         number(s.chunk / s.rate_hz) + ", \"ramp_s\": " + number(s.ramp_s) + ", \"hold_s\": " + number(s.hold_s) + "},\n\"native\": {\"file\": \"weights.safetensors\", \"kind\": \"flow_mlp\", " +
         "\"activation\": \"silu\", \"steps\": " + std::to_string(s.steps) + ", \"latent_clip\": null, \"bounded\": true, \"observation\": [{\"key\": \"policy\", \"clip\": null}], \"layer_norm_eps\": null, " +
         "\"prefix\": 0},\n\"golden\": {\"file\": \"golden.npz\", \"tolerance\": 1e-5, \"action_scale\": null}, \"files\": {" + hashes + "}}";
}

inline void seal(const std::string& folder, const std::string& text) {
  write(folder + "/runtime.json", text);
  const std::string yaml = "files:\n  runtime.json: " + robo_rlft::sha256(text) + "\n";
  write(folder + "/controller.yaml", yaml + "digest: " + robo_rlft::sha256(yaml) + "\n");
}

// Writes a bundle into a fresh folder below the system's temporary one and returns its path.
inline std::string bundle(const std::string& name, const Shape& shape = {}) {
  const std::string folder = (std::filesystem::temp_directory_path() / ("robo_rlft_" + std::to_string(::getpid()) + "_" + name)).string();
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  Network network(shape);
  constexpr int kRows = 4;
  Tensors golden;
  golden["observation/policy"] = network.random({kRows, shape.horizon, shape.width}, 1.0);
  golden["noise"] = network.random({kRows, shape.chunk, shape.joints}, 1.0);
  golden["action"] = Tensor{{kRows, shape.chunk, shape.joints}, {}};
  for (int row = 0; row < kRows; ++row) {
    const auto actions = network.act(golden["observation/policy"].data.data() + row * shape.horizon * shape.width, golden["noise"].data.data() + row * shape.chunk * shape.joints);
    golden["action"].data.insert(golden["action"].data.end(), actions.begin(), actions.end());
  }
  const std::map<std::string, std::string> files = {{"policy.onnx", "none"}, {"weights.safetensors", safetensors(network.tensors)}, {"golden.npz", npz(golden)}};
  for (const auto& [file, data] : files) write(folder + "/" + file, data);
  seal(folder, description(shape, files));
  return folder;
}

}  // namespace synthetic
