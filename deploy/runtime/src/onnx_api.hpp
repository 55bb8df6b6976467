// The part of ONNX Runtime's C API that this runtime calls. Its table of functions only ever grows at the end, so that the
// places below hold for every release; no package carries the header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace robo_rlft::onnx {

struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct MemoryInfo;
struct Allocator;
struct Value;

constexpr std::uint32_t kApiVersion = 12;  // of 2022; a later library gives the same table for it
constexpr int kFloat = 1;                  // element type float32
constexpr int kWarning = 2, kError = 3;    // log severities
constexpr int kArenaAllocator = 1, kDefaultMemory = 0;
constexpr int kAllOptimisations = 99;

using Function = void (*)();
using Table = Function;  // the table is an array of these

struct ApiBase {
  const Table* (*get_api)(std::uint32_t version);
  const char* (*version)();
};

// A function of the table: its place and its type.
template <int Place, typename Type>
struct Entry;
template <int Place, typename Result, typename... Arguments>
struct Entry<Place, Result(Arguments...)> {
  static Result call(const Table* api, Arguments... arguments) { return reinterpret_cast<Result (*)(Arguments...)>(api[Place])(arguments...); }
};

using GetErrorMessage = Entry<2, const char*(const Status*)>;
using CreateEnv = Entry<3, Status*(int severity, const char* id, Env** out)>;
using CreateSessionFromArray = Entry<8, Status*(const Env*, const void* data, std::size_t size, const SessionOptions*, Session** out)>;
using Run = Entry<9, Status*(Session*, const void* options, const char* const* names, const Value* const* inputs, std::size_t count,
                             const char* const* output_names, std::size_t output_count, Value** outputs)>;
using CreateSessionOptions = Entry<10, Status*(SessionOptions** out)>;
using SetSessionLogSeverityLevel = Entry<22, Status*(SessionOptions*, int)>;
using SetSessionGraphOptimizationLevel = Entry<23, Status*(SessionOptions*, int)>;
using SetIntraOpNumThreads = Entry<24, Status*(SessionOptions*, int)>;
using SetInterOpNumThreads = Entry<25, Status*(SessionOptions*, int)>;
using SessionGetInputCount = Entry<30, Status*(const Session*, std::size_t* out)>;
using SessionGetInputName = Entry<36, Status*(const Session*, std::size_t index, Allocator*, char** out)>;
using CreateTensorWithDataAsOrtValue = Entry<49, Status*(const MemoryInfo*, void* data, std::size_t bytes, const std::int64_t* shape,
                                                         std::size_t rank, int type, Value** out)>;
using CreateCpuMemoryInfo = Entry<69, Status*(int allocator, int memory, MemoryInfo** out)>;
using AllocatorFree = Entry<76, Status*(Allocator*, void*)>;
using GetAllocatorWithDefaultOptions = Entry<78, Status*(Allocator** out)>;
using ReleaseEnv = Entry<92, void(Env*)>;
using ReleaseStatus = Entry<93, void(Status*)>;
using ReleaseMemoryInfo = Entry<94, void(MemoryInfo*)>;
using ReleaseSession = Entry<95, void(Session*)>;
using ReleaseValue = Entry<96, void(Value*)>;
using ReleaseSessionOptions = Entry<100, void(SessionOptions*)>;

}  // namespace robo_rlft::onnx
