// Files of a bundle: bytes, SHA-256, safetensors and npz, each with every length checked before it is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace robo_rlft {

// A float32 array in C order.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};

using Tensors = std::map<std::string, Tensor>;

// The whole file; raises Error where it cannot be read.
std::string read_file(const std::string& path);

// Hexadecimal SHA-256 (FIPS 180-4).
std::string sha256(std::string_view data);

// Every tensor of a safetensors file. Raises Error where it is damaged or holds another type than F32.
Tensors read_safetensors(std::string_view data);

// Every float32 array of an npz as numpy.savez writes it (stored, not compressed). Raises Error otherwise.
Tensors read_npz(std::string_view data);

}  // namespace robo_rlft
