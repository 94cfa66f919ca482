// The library behind CTorch.h. It converts arguments and results, keeps exceptions in, and
// computes nothing.
#include "CTorch.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/version.h>
#endif

#ifndef LINEUP_TORCH_VERSION
#define LINEUP_TORCH_VERSION TORCH_VERSION
#endif

#define CT_EXPORT __attribute__((visibility("default")))

namespace {

using c10::IValue;

// ---- Failures ------------------------------------------------------------------------------

thread_local std::string lastError;

ct_status fail(ct_status status, std::string message) noexcept {
    try {
        lastError = std::move(message);
    } catch (...) {
        lastError.clear();
    }
    return status;
}

/// An argument that does not fit the schema.
struct BadArgument {
    std::string message;
};

/// Runs `body`, and turns whatever it throws into a status and a message.
template <typename Body>
ct_status guarded(Body&& body) noexcept {
    try {
        body();
        return CT_OK;
    } catch (const BadArgument& error) {
        return fail(CT_BAD_ARGUMENT, error.message);
    } catch (const c10::OutOfMemoryError& error) {
        return fail(CT_OUT_OF_MEMORY, error.what_without_backtrace());
    } catch (const c10::Error& error) {
        const char* text = error.what_without_backtrace();
        // The CPU allocator reports exhaustion as a plain error.
        const bool memory = std::strstr(text, "DefaultCPUAllocator: can't allocate") != nullptr;
        return fail(memory ? CT_OUT_OF_MEMORY : CT_FAILED, text);
    } catch (const std::bad_alloc&) {
        return fail(CT_OUT_OF_MEMORY, "host memory ran out");
    } catch (const std::exception& error) {
        return fail(CT_FAILED, error.what());
    } catch (...) {
        return fail(CT_FAILED, "an exception of an unknown type");
    }
}

// ---- Handles -------------------------------------------------------------------------------

const at::Tensor& open(ct_tensor handle) {
    if (handle == nullptr) throw BadArgument{"the tensor handle is NULL"};
    return *reinterpret_cast<const at::Tensor*>(handle);
}

ct_tensor box(at::Tensor tensor) {
    return reinterpret_cast<ct_tensor>(new at::Tensor(std::move(tensor)));
}

void tensorFree(ct_tensor handle) noexcept { delete reinterpret_cast<at::Tensor*>(handle); }

c10::Device device(int32_t type, int32_t index) {
    return c10::Device(
        static_cast<c10::DeviceType>(type),
        type == CT_CPU ? -1 : static_cast<c10::DeviceIndex>(index));
}

// ---- Tensors -------------------------------------------------------------------------------

ct_status tensorCopy(
    const void* data, const int64_t* shape, int32_t dimensions, int32_t dtype, ct_tensor* out) {
    *out = nullptr;
    return guarded([&] {
        const auto kind = static_cast<at::ScalarType>(dtype);
        auto tensor = at::empty(
            at::IntArrayRef(shape, static_cast<size_t>(dimensions)), at::TensorOptions(kind));
        if (tensor.nbytes() > 0) std::memcpy(tensor.mutable_data_ptr(), data, tensor.nbytes());
        *out = box(std::move(tensor));
    });
}

/// Refuses sizes and strides over which `at::from_blob` ends the process: it computes the storage's
/// size in a function that may not throw.
void checkExtent(const int64_t* shape, const int64_t* strides, int32_t dimensions) {
    int64_t last = 0, count = 1;
    bool sound = true;
    for (int32_t place = 0; place < dimensions; ++place) {
        const int64_t size = shape[place];
        const int64_t stride = strides == nullptr ? 0 : strides[place];
        int64_t reach = 0;
        sound = sound && size >= 0 && stride >= 0 &&
            !__builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count) &&
            !__builtin_mul_overflow(std::max<int64_t>(size - 1, 0), stride, &reach) &&
            !__builtin_add_overflow(last, reach, &last);
    }
    // Sixteen bytes is the largest element.
    if (!sound || count > INT64_MAX / 16 || last > INT64_MAX / 16 - 1) {
        throw BadArgument{"sizes and strides must not be negative, and their reach must fit"};
    }
}

ct_status tensorView(
    void* data, const int64_t* shape, const int64_t* strides, int32_t dimensions, int32_t dtype,
    int32_t deviceType, int32_t deviceIndex, ct_release release, void* context, ct_tensor* out) {
    *out = nullptr;
    // Whoever drops the last copy of the holder, also on the way out of a failure, releases.
    std::shared_ptr<void> holder;
    try {
        if (release != nullptr) holder = std::shared_ptr<void>(context, release);
    } catch (...) {
        return fail(CT_OUT_OF_MEMORY, "host memory ran out");
    }
    return guarded([&] {
        checkExtent(shape, strides, dimensions);
        const auto size = static_cast<size_t>(dimensions);
        const auto place = device(deviceType, deviceIndex);
        const auto options =
            at::TensorOptions(static_cast<at::ScalarType>(dtype)).device(place);
        const at::IntArrayRef sizes(shape, size);
        auto deleter = [holder](void*) {};
        auto tensor =
            strides == nullptr
                ? at::from_blob(data, sizes, deleter, options, place)
                : at::from_blob(
                      data, sizes, at::IntArrayRef(strides, size), deleter, options, place);
        *out = box(std::move(tensor));
    });
}

ct_status tensorRetain(ct_tensor handle, ct_tensor* out) {
    *out = nullptr;
    return guarded([&] { *out = box(open(handle)); });
}

ct_status tensorDescribe(ct_tensor handle, ct_description* out) {
    std::memset(out, 0, sizeof *out);
    return guarded([&] {
        const auto& tensor = open(handle);
        const auto sizes = tensor.sizes();
        const auto strides = tensor.strides();
        out->dtype = static_cast<int32_t>(tensor.scalar_type());
        out->device_type = static_cast<int32_t>(tensor.device().type());
        out->device_index = tensor.device().index();
        out->dimensions = static_cast<int32_t>(sizes.size());
        out->count = tensor.numel();
        out->storage_offset = tensor.storage_offset();
        out->shape = sizes.data();
        out->strides = strides.data();
        // const: reading the address must not materialise copy-on-write storage.
        out->data = const_cast<void*>(tensor.const_data_ptr());
        out->is_contiguous = tensor.is_contiguous();
        out->is_channels_last =
            sizes.size() == 4 && tensor.is_contiguous(at::MemoryFormat::ChannelsLast);
        out->requires_gradient = tensor.requires_grad();
        out->is_leaf = tensor.is_leaf();
    });
}

ct_status tensorItem(ct_tensor handle, double* out) {
    *out = 0;
    return guarded([&] { *out = open(handle).item().toDouble(); });
}

ct_status tensorRequireGradient(ct_tensor handle, int32_t required) {
    return guarded([&] { open(handle).set_requires_grad(required != 0); });
}

ct_status tensorDetach(ct_tensor handle, ct_tensor* out) {
    *out = nullptr;
    return guarded([&] { *out = box(open(handle).detach()); });
}

// ---- Operators -----------------------------------------------------------------------------

/// What an argument of a schema takes, read once when the operator is looked up.
enum class Kind {
    tensor,
    integer,
    real,
    boolean,
    number,
    string,
    device,
    integers,
    reals,
    booleans,
    numbers,
    tensors,
    optionalTensors,
    other,
};

struct Parameter {
    Kind kind = Kind::other;
    bool optional = false;
    bool hasDefault = false;
    int32_t fixedSize = 0;
    std::string name;
    std::string type;
    IValue defaultValue;
};

struct Operator {
    c10::OperatorHandle handle;
    std::vector<Parameter> parameters;
    std::string schema;
};

Kind kindOf(const c10::Type& type) {
    switch (type.kind()) {
        case c10::TypeKind::TensorType: return Kind::tensor;
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType: return Kind::integer;
        case c10::TypeKind::FloatType:
        case c10::TypeKind::SymFloatType: return Kind::real;
        case c10::TypeKind::BoolType:
        case c10::TypeKind::SymBoolType: return Kind::boolean;
        case c10::TypeKind::NumberType: return Kind::number;
        case c10::TypeKind::StringType: return Kind::string;
        case c10::TypeKind::DeviceObjType: return Kind::device;
        case c10::TypeKind::ListType: {
            const auto& element = *type.containedTypes().at(0);
            switch (kindOf(element)) {
                case Kind::tensor: return Kind::tensors;
                case Kind::integer: return Kind::integers;
                case Kind::real: return Kind::reals;
                case Kind::boolean: return Kind::booleans;
                case Kind::number: return Kind::numbers;
                default: break;
            }
            if (element.kind() == c10::TypeKind::OptionalType &&
                kindOf(*element.containedTypes().at(0)) == Kind::tensor) {
                return Kind::optionalTensors;
            }
            return Kind::other;
        }
        default: return Kind::other;
    }
}

Parameter parameterOf(const c10::Argument& argument) {
    Parameter parameter;
    parameter.name = argument.name();
    parameter.type = argument.type()->str();
    const c10::Type* type = argument.type().get();
    if (type->kind() == c10::TypeKind::OptionalType) {
        parameter.optional = true;
        type = type->containedTypes().at(0).get();
    }
    parameter.kind = kindOf(*type);
    parameter.fixedSize = argument.N().value_or(0);
    if (argument.default_value().has_value()) {
        parameter.hasDefault = true;
        parameter.defaultValue = *argument.default_value();
    }
    return parameter;
}

const Operator& open(ct_operator handle) {
    if (handle == nullptr) throw BadArgument{"the operator handle is NULL"};
    return *reinterpret_cast<const Operator*>(handle);
}

struct OperatorTable {
    std::mutex mutex;
    std::unordered_map<std::string, std::unique_ptr<Operator>> known;
};

OperatorTable& operatorTable() {
    // Never destroyed: other threads may still call operators while the process exits.
    static auto* const table = new OperatorTable;
    return *table;
}

ct_status operatorFind(const char* name, const char* overload, ct_operator* out) {
    *out = nullptr;
    bool missing = false;
    const auto status = guarded([&] {
        const std::string key = std::string(name) + "." + overload;
        auto& table = operatorTable();
        const std::lock_guard<std::mutex> lock(table.mutex);
        auto found = table.known.find(key);
        if (found == table.known.end()) {
            auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
            if (!handle.has_value()) {
                missing = true;
                return;
            }
            auto built = std::make_unique<Operator>(Operator{*handle, {}, {}});
            const auto& schema = handle->schema();
            for (const auto& argument : schema.arguments()) {
                built->parameters.push_back(parameterOf(argument));
            }
            built->schema = c10::toString(schema);
            found = table.known.emplace(key, std::move(built)).first;
        }
        *out = reinterpret_cast<ct_operator>(found->second.get());
    });
    if (status == CT_OK && missing) {
        return fail(CT_UNKNOWN_OPERATOR, "this LibTorch has no such operator or overload");
    }
    return status;
}

const char* operatorSchema(ct_operator handle) noexcept {
    return handle == nullptr ? "" : reinterpret_cast<const Operator*>(handle)->schema.c_str();
}

int32_t operatorArgumentCount(ct_operator handle) noexcept {
    if (handle == nullptr) return 0;
    const auto* const op = reinterpret_cast<const Operator*>(handle);
    return static_cast<int32_t>(op->parameters.size());
}

const char* kindName(int32_t kind) {
    switch (kind) {
        case CT_NONE: return "None";
        case CT_TENSOR: return "a tensor";
        case CT_INTEGER: return "an integer";
        case CT_REAL: return "a real number";
        case CT_BOOLEAN: return "a boolean";
        case CT_INTEGERS: return "a list of integers";
        case CT_REALS: return "a list of real numbers";
        case CT_BOOLEANS: return "a list of booleans";
        case CT_TENSORS: return "a list of tensors";
        case CT_STRING: return "a string";
        case CT_DEVICE: return "a device";
        default: return "a value of an unknown kind";
    }
}

[[noreturn]] void mismatch(const Parameter& parameter, const ct_value& value) {
    throw BadArgument{
        "argument '" + parameter.name + "' takes " + parameter.type + ", not " +
        kindName(value.kind)};
}

const IValue& defaultOf(const Parameter& parameter) {
    if (!parameter.hasDefault) {
        throw BadArgument{
            "argument '" + parameter.name + "' (" + parameter.type + ") is missing and has no "
            "default"};
    }
    return parameter.defaultValue;
}

template <typename Element>
const Element* listOf(const ct_value& value) {
    return static_cast<const Element*>(value.list);
}

IValue tensorList(const Parameter& parameter, const ct_value& value) {
    const auto* const handles = listOf<ct_tensor>(value);
    if (parameter.kind == Kind::tensors) {
        c10::List<at::Tensor> list;
        list.reserve(static_cast<size_t>(value.count));
        for (int64_t place = 0; place < value.count; ++place) list.push_back(open(handles[place]));
        return IValue(std::move(list));
    }
    c10::List<std::optional<at::Tensor>> list;
    list.reserve(static_cast<size_t>(value.count));
    for (int64_t place = 0; place < value.count; ++place) {
        if (handles[place] == nullptr) {
            list.push_back(std::nullopt);
        } else {
            list.push_back(open(handles[place]));
        }
    }
    return IValue(std::move(list));
}

IValue integerList(const Parameter& parameter, const ct_value& value) {
    const auto* const items = listOf<int64_t>(value);
    const auto count = static_cast<size_t>(value.count);
    switch (parameter.kind) {
        case Kind::integers: return IValue(at::IntArrayRef(items, count));
        case Kind::reals: {
            c10::List<double> list;
            for (size_t place = 0; place < count; ++place) {
                list.push_back(static_cast<double>(items[place]));
            }
            return IValue(std::move(list));
        }
        case Kind::numbers: {
            c10::impl::GenericList list(c10::NumberType::get());
            for (size_t place = 0; place < count; ++place) list.push_back(IValue(items[place]));
            return IValue(std::move(list));
        }
        default: mismatch(parameter, value);
    }
}

IValue realList(const Parameter& parameter, const ct_value& value) {
    const auto* const items = listOf<double>(value);
    const auto count = static_cast<size_t>(value.count);
    if (parameter.kind == Kind::reals) {
        c10::List<double> list;
        for (size_t place = 0; place < count; ++place) list.push_back(items[place]);
        return IValue(std::move(list));
    }
    if (parameter.kind == Kind::numbers) {
        c10::impl::GenericList list(c10::NumberType::get());
        for (size_t place = 0; place < count; ++place) list.push_back(IValue(items[place]));
        return IValue(std::move(list));
    }
    mismatch(parameter, value);
}

IValue booleanList(const Parameter& parameter, const ct_value& value) {
    if (parameter.kind != Kind::booleans) mismatch(parameter, value);
    const auto* const items = listOf<int64_t>(value);
    c10::List<bool> list;
    for (int64_t place = 0; place < value.count; ++place) list.push_back(items[place] != 0);
    return IValue(std::move(list));
}

IValue argumentValue(const Parameter& parameter, const ct_value& value) {
    const Kind kind = parameter.kind;
    switch (value.kind) {
        case CT_DEFAULT: return defaultOf(parameter);
        case CT_NONE:
            if (parameter.optional) return IValue();
            if (parameter.hasDefault && parameter.defaultValue.isNone()) return IValue();
            mismatch(parameter, value);
        case CT_TENSOR:
            if (kind == Kind::tensor) return IValue(open(value.tensor));
            mismatch(parameter, value);
        case CT_INTEGER:
            if (kind == Kind::integer || kind == Kind::number) return IValue(value.integer);
            if (kind == Kind::real) return IValue(static_cast<double>(value.integer));
            if (kind == Kind::integers && parameter.fixedSize > 0) {
                return IValue(std::vector<int64_t>(
                    static_cast<size_t>(parameter.fixedSize), value.integer));
            }
            mismatch(parameter, value);
        case CT_REAL:
            if (kind == Kind::real || kind == Kind::number) return IValue(value.real);
            mismatch(parameter, value);
        case CT_BOOLEAN:
            if (kind == Kind::boolean || kind == Kind::number) return IValue(value.integer != 0);
            mismatch(parameter, value);
        case CT_INTEGERS:
            // An empty list says nothing about its elements.
            if (value.count == 0) {
                if (kind == Kind::tensors || kind == Kind::optionalTensors) {
                    return tensorList(parameter, value);
                }
                if (kind == Kind::booleans) return booleanList(parameter, value);
            }
            return integerList(parameter, value);
        case CT_REALS: return realList(parameter, value);
        case CT_BOOLEANS: return booleanList(parameter, value);
        case CT_TENSORS:
            if (kind == Kind::tensors || kind == Kind::optionalTensors) {
                return tensorList(parameter, value);
            }
            mismatch(parameter, value);
        case CT_STRING:
            if (kind == Kind::string) {
                return IValue(
                    std::string(listOf<char>(value), static_cast<size_t>(value.count)));
            }
            mismatch(parameter, value);
        case CT_DEVICE:
            if (kind == Kind::device) {
                return IValue(device(
                    static_cast<int32_t>(value.integer >> 8),
                    static_cast<int32_t>(value.integer & 0xFF) - 1));
            }
            mismatch(parameter, value);
        default: mismatch(parameter, value);
    }
}

/// Results under construction; freed again unless handed over.
struct Results {
    ct_value* values;
    int32_t count = 0;
    bool kept = false;

    ~Results() {
        if (kept) return;
        for (int32_t place = 0; place < count; ++place) {
            ct_value& value = values[place];
            tensorFree(value.tensor);
            if (value.kind == CT_TENSORS) {
                const auto* const handles = listOf<ct_tensor>(value);
                for (int64_t item = 0; item < value.count; ++item) tensorFree(handles[item]);
            }
            delete[] static_cast<const char*>(value.list);
            std::memset(&value, 0, sizeof value);
        }
    }
};

template <typename Element>
Element* allocateList(ct_value& value, int32_t kind, size_t count) {
    auto* const bytes = new char[sizeof(Element) * (count + 1)]();
    value.kind = kind;
    value.list = bytes;
    value.count = static_cast<int64_t>(count);
    return reinterpret_cast<Element*>(bytes);
}

void resultValue(IValue&& source, ct_value& value) {
    if (source.isTensor()) {
        auto tensor = std::move(source).toTensor();
        if (!tensor.defined()) return;
        value.tensor = box(std::move(tensor));
        value.kind = CT_TENSOR;
    } else if (source.isNone()) {
        return;
    } else if (source.isBool()) {
        value.kind = CT_BOOLEAN;
        value.integer = source.toBool();
    } else if (source.isInt()) {
        value.kind = CT_INTEGER;
        value.integer = source.toInt();
    } else if (source.isDouble()) {
        value.kind = CT_REAL;
        value.real = source.toDouble();
    } else if (source.isDevice()) {
        const auto place = source.toDevice();
        value.kind = CT_DEVICE;
        value.integer = static_cast<int64_t>(place.type()) << 8 | (place.index() + 1);
    } else if (source.isString()) {
        const auto& text = source.toStringRef();
        std::memcpy(
            allocateList<char>(value, CT_STRING, text.size()), text.data(), text.size());
    } else if (source.isTensorList()) {
        const auto list = source.toTensorVector();
        auto* const handles = allocateList<ct_tensor>(value, CT_TENSORS, list.size());
        for (size_t place = 0; place < list.size(); ++place) {
            handles[place] = list[place].defined() ? box(list[place]) : nullptr;
        }
    } else if (source.isIntList()) {
        const auto list = source.toIntVector();
        auto* const items = allocateList<int64_t>(value, CT_INTEGERS, list.size());
        std::copy(list.begin(), list.end(), items);
    } else if (source.isDoubleList()) {
        const auto list = source.toDoubleVector();
        auto* const items = allocateList<double>(value, CT_REALS, list.size());
        std::copy(list.begin(), list.end(), items);
    } else if (source.isBoolList()) {
        const auto list = source.toBoolList();
        auto* const items = allocateList<int64_t>(value, CT_BOOLEANS, list.size());
        for (size_t place = 0; place < list.size(); ++place) items[place] = list.get(place);
    } else {
        throw BadArgument{"the operator returns a " + source.tagKind() + ", which is not passed on"};
    }
}

ct_status operatorCall(
    ct_operator handle, const ct_value* arguments, int32_t argumentCount, ct_value* results,
    int32_t capacity, int32_t* resultCount) {
    *resultCount = 0;
    return guarded([&] {
        const auto& op = open(handle);
        const auto given = static_cast<size_t>(argumentCount);
        if (given > op.parameters.size()) {
            throw BadArgument{
                "it takes at most " + std::to_string(op.parameters.size()) + " arguments, not " +
                std::to_string(given)};
        }
        std::vector<IValue> stack;
        stack.reserve(std::max<size_t>(op.parameters.size(), 8));
        for (size_t place = 0; place < op.parameters.size(); ++place) {
            if (place < given) {
                stack.push_back(argumentValue(op.parameters[place], arguments[place]));
            } else {
                stack.push_back(defaultOf(op.parameters[place]));
            }
        }
        op.handle.callBoxed(&stack);
        if (stack.size() > static_cast<size_t>(capacity)) {
            throw BadArgument{
                "it returns " + std::to_string(stack.size()) + " values, and there is room for " +
                std::to_string(capacity)};
        }
        Results made{results};
        for (auto& value : stack) {
            std::memset(&results[made.count], 0, sizeof *results);
            made.count += 1;
            resultValue(std::move(value), results[made.count - 1]);
        }
        made.kept = true;
        *resultCount = made.count;
    });
}

void listFree(const void* list) noexcept { delete[] static_cast<const char*>(list); }

// ---- Autograd ------------------------------------------------------------------------------

ct_status gradients(
    const ct_tensor* outputs, const ct_tensor* outputGradients, int32_t outputCount,
    const ct_tensor* inputs, int32_t inputCount, int32_t keepGraph, int32_t createGraph,
    ct_tensor* results) {
    for (int32_t place = 0; place < inputCount; ++place) results[place] = nullptr;
    const auto status = guarded([&] {
        std::vector<at::Tensor> from, seeds, to;
        for (int32_t place = 0; place < outputCount; ++place) {
            from.push_back(open(outputs[place]));
            if (outputGradients == nullptr) continue;
            seeds.push_back(
                outputGradients[place] == nullptr ? at::Tensor() : open(outputGradients[place]));
        }
        for (int32_t place = 0; place < inputCount; ++place) to.push_back(open(inputs[place]));
        auto found = torch::autograd::grad(
            from, to, seeds, keepGraph != 0 || createGraph != 0, createGraph != 0,
            /*allow_unused=*/true);
        for (int32_t place = 0; place < inputCount; ++place) {
            auto& gradient = found.at(static_cast<size_t>(place));
            if (gradient.defined()) results[place] = box(std::move(gradient));
        }
    });
    if (status != CT_OK) {
        for (int32_t place = 0; place < inputCount; ++place) {
            tensorFree(results[place]);
            results[place] = nullptr;
        }
    }
    return status;
}

int32_t setGradientMode(int32_t enabled) noexcept {
    const bool before = c10::GradMode::is_enabled();
    c10::GradMode::set_enabled(enabled != 0);
    return before;
}

int32_t gradientMode() noexcept { return c10::GradMode::is_enabled(); }

ct_status autocastGet(int32_t deviceType, ct_autocast* out) {
    std::memset(out, 0, sizeof *out);
    return guarded([&] {
        const auto type = static_cast<c10::DeviceType>(deviceType);
        out->enabled = at::autocast::is_autocast_enabled(type);
        out->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(type));
        out->cache = at::autocast::is_autocast_cache_enabled();
    });
}

ct_status autocastSet(int32_t deviceType, const ct_autocast* setting) {
    return guarded([&] {
        const auto type = static_cast<c10::DeviceType>(deviceType);
        if (at::autocast::is_autocast_cache_enabled()) at::autocast::clear_cache();
        at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(setting->dtype));
        at::autocast::set_autocast_cache_enabled(setting->cache != 0);
        at::autocast::set_autocast_enabled(type, setting->enabled != 0);
    });
}

// ---- Threads and numerics --------------------------------------------------------------------

ct_status setThreadCount(int32_t count) {
    return guarded([&] {
        if (count < 1) {
            throw BadArgument{
                "the number of threads is " + std::to_string(count) + ", it must be positive"};
        }
        // A thread's first parallel region takes over the last value that any thread has set.
        // Asking first makes this thread do so now, so that it cannot happen after our own value.
        at::get_num_threads();
        at::set_num_threads(count);
    });
}

int32_t threadCount() noexcept {
    try {
        return at::get_num_threads();
    } catch (...) {
        return 1;
    }
}

/// Keeps LibTorch from printing that the switches have newer names, which 2.11 lacks in part.
class SilentWarnings final : public c10::WarningHandler {
    void process(const c10::Warning&) override {}
};

ct_status numericsGet(ct_numerics* out) {
    std::memset(out, 0, sizeof *out);
    return guarded([&] {
        SilentWarnings silent;
        const c10::WarningUtils::WarningHandlerGuard guard(&silent);
        auto& context = at::globalContext();
        out->deterministic = context.deterministicAlgorithms();
        out->cudnn_deterministic = context.deterministicCuDNN();
        out->cudnn_benchmark = context.benchmarkCuDNN();
        out->allow_tf32 = context.allowTF32CuDNN() || context.allowTF32CuBLAS();
        using Reduction = at::CuBLASReductionOption;
        out->allow_reduced_sums =
            context.allowFP16ReductionCuBLAS() == Reduction::AllowReducedPrecisionWithSplitK ||
            context.allowBF16ReductionCuBLAS() == Reduction::AllowReducedPrecisionWithSplitK;
    });
}

ct_status numericsSet(const ct_numerics* setting) {
    return guarded([&] {
        SilentWarnings silent;
        const c10::WarningUtils::WarningHandlerGuard guard(&silent);
        auto& context = at::globalContext();
        context.setDeterministicAlgorithms(setting->deterministic != 0, /*warn_only=*/false);
        // Filling fresh memory with NaN is a debugging aid that costs a pass over every result.
        context.setDeterministicFillUninitializedMemory(false);
        context.setDeterministicCuDNN(setting->cudnn_deterministic != 0);
        context.setBenchmarkCuDNN(setting->cudnn_benchmark != 0);
        context.setAllowTF32CuDNN(setting->allow_tf32 != 0);
        context.setAllowTF32CuBLAS(setting->allow_tf32 != 0);
        context.setAllowFP16ReductionCuBLAS(setting->allow_reduced_sums != 0);
        context.setAllowBF16ReductionCuBLAS(setting->allow_reduced_sums != 0);
    });
}

ct_status seedGenerators(uint64_t seed) {
    return guarded([&] { at::manual_seed(seed); });
}

// ---- Devices -------------------------------------------------------------------------------

int32_t deviceCount(int32_t type) noexcept {
    try {
        if (type == CT_CPU) return 1;
        if (type != CT_CUDA || !at::globalContext().hasCUDA()) return 0;
        return c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA)->deviceCount();
    } catch (...) {
        return 0;
    }
}

/// The implementation of a device's queues, once the device is known to exist and is set up.
const c10::impl::DeviceGuardImplInterface& implementation(int32_t type, int32_t index) {
    const int32_t count = deviceCount(type);
    if (index < 0 || index >= count) {
        throw BadArgument{
            "there is no such device; this process has " + std::to_string(count) + " of its kind"};
    }
    const auto kind = static_cast<c10::DeviceType>(type);
    at::globalContext().lazyInitDevice(kind);
    return *c10::impl::getDeviceGuardImpl(kind);
}

/// A function of the CUDA driver, which LibTorch has loaded; its headers are not needed.
template <typename Function>
Function driverFunction(const char* name) {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void* const symbol = library == nullptr ? nullptr : dlsym(library, name);
    if (symbol == nullptr) {
        throw BadArgument{std::string("the CUDA driver (libcuda.so.1) lacks ") + name};
    }
    return reinterpret_cast<Function>(symbol);
}

ct_status deviceMemory(
    int32_t type, int32_t index, uint64_t* freeBytes, uint64_t* totalBytes) {
    *freeBytes = 0;
    *totalBytes = 0;
    return guarded([&] {
        if (type != CT_CUDA) throw BadArgument{"only a CUDA device has memory of its own"};
        implementation(type, index);
        const auto place = device(type, index);
        const c10::DeviceGuard guard(place);
        // The driver's call needs a context; an allocation makes one.
        at::empty({1}, at::TensorOptions(at::kByte).device(place));
        size_t available = 0, total = 0;
        const auto ask = driverFunction<int (*)(size_t*, size_t*)>("cuMemGetInfo_v2");
        const int code = ask(&available, &total);
        if (code != 0) throw BadArgument{"cuMemGetInfo failed with code " + std::to_string(code)};
        *freeBytes = available;
        *totalBytes = total;
    });
}

ct_status deviceName(int32_t type, int32_t index, char* out, int32_t capacity) {
    if (capacity > 0) out[0] = 0;
    return guarded([&] {
        if (type != CT_CUDA) throw BadArgument{"only a CUDA device has a name"};
        implementation(type, index);
        int ordinal = 0;
        int code = driverFunction<int (*)(unsigned)>("cuInit")(0);
        if (code == 0) code = driverFunction<int (*)(int*, int)>("cuDeviceGet")(&ordinal, index);
        if (code == 0) {
            code = driverFunction<int (*)(char*, int, int)>("cuDeviceGetName")(
                out, capacity, ordinal);
        }
        if (code != 0) throw BadArgument{"cuDeviceGetName failed with " + std::to_string(code)};
    });
}

ct_status deviceSynchronize(int32_t type, int32_t index) {
    return guarded([&] {
        if (type == CT_CPU) return;
        implementation(type, index).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
    });
}

ct_status deviceSelect(int32_t type, int32_t index) {
    return guarded([&] {
        if (type == CT_CPU) return;
        implementation(type, index).setDevice(device(type, index));
    });
}

ct_status eventRecord(int32_t type, int32_t index, ct_event* out) {
    *out = nullptr;
    return guarded([&] {
        if (type == CT_CPU) throw BadArgument{"a CPU has no queue to mark"};
        const auto& kind = implementation(type, index);
        auto event = std::make_unique<c10::Event>(static_cast<c10::DeviceType>(type));
        event->record(kind.getStream(device(type, index)));
        *out = reinterpret_cast<ct_event>(event.release());
    });
}

ct_status eventWait(ct_event event) {
    return guarded([&] { reinterpret_cast<c10::Event*>(event)->synchronize(); });
}

ct_status eventQuery(ct_event event, int32_t* done) {
    *done = 0;
    return guarded([&] { *done = reinterpret_cast<c10::Event*>(event)->query(); });
}

void eventFree(ct_event event) noexcept {
    try {
        delete reinterpret_cast<c10::Event*>(event);
    } catch (...) {
        // Destroying an event of a device that has failed: there is nothing left to free.
    }
}

// ---- Host memory -----------------------------------------------------------------------------

/// LibTorch's allocator of host memory with a stock of freed blocks, by size.
///
/// A block starts with a header that says its size, because LibTorch wants the data pointer itself
/// as the handle to free. Sizes are rounded up to one of eight steps to a power of two.
class StockAllocator final : public c10::Allocator {
public:
    c10::DataPtr allocate(size_t bytes) override {
        if (bytes == 0) return {nullptr, nullptr, &giveBack, c10::Device(c10::DeviceType::CPU)};
        const size_t size = rounded(bytes);
        void* data = take(size);
        if (data == nullptr) data = fresh(size);
        return {data, data, &giveBack, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DeleterFnPtr raw_deleter() const override { return &giveBack; }

    void copy_data(void* to, const void* from, std::size_t count) const override {
        default_copy_data(to, from, count);
    }

    void keep(uint64_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        limit_ = bytes;
        if (kept_ > limit_) clear();
    }

    uint64_t kept() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return kept_;
    }

    static StockAllocator& shared() {
        // Never destroyed: tensors in static storage are freed after everything else.
        static auto* const allocator = [] {
            auto* const made = new StockAllocator;
            c10::SetCPUAllocator(made, /*priority=*/1);
            return made;
        }();
        return *allocator;
    }

private:
    static constexpr size_t header = 64;  // LibTorch's alignment, which the data keeps
    static constexpr size_t hugePage = size_t{1} << 21;
    static constexpr size_t smallest = size_t{1} << 14;  // below, malloc itself keeps blocks

    static size_t rounded(size_t bytes) {
        if (bytes > SIZE_MAX / 2) return bytes;
        if (bytes < smallest) return bytes;
        const size_t step = std::bit_floor(bytes) / 8;
        return (bytes + step - 1) / step * step;
    }

    static void* fresh(size_t size) {
        TORCH_CHECK(
            size <= SIZE_MAX / 2, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ",
            size, " bytes.");
        const size_t whole = size + header;
        void* block = nullptr;
        const bool large = whole >= 2 * hugePage;
        if (posix_memalign(&block, large ? hugePage : header, whole) != 0) {
            shared().keepNothingOnce();
            if (posix_memalign(&block, large ? hugePage : header, whole) != 0) {
                TORCH_CHECK(
                    false, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ",
                    size, " bytes.");
            }
        }
        // Large pages spare faults and address look-ups, where the system gives them on request.
        if (large) madvise(block, whole / hugePage * hugePage, MADV_HUGEPAGE);
        std::memcpy(block, &size, sizeof size);
        return static_cast<char*>(block) + header;
    }

    static void giveBack(void* data) {
        if (data == nullptr) return;
        void* const block = static_cast<char*>(data) - header;
        size_t size = 0;
        std::memcpy(&size, block, sizeof size);
        if (!shared().put(size, data)) free(block);
    }

    void* take(size_t size) {
        if (size < smallest) return nullptr;
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = stock_.find(size);
        if (found == stock_.end() || found->second.empty()) return nullptr;
        void* const data = found->second.back();
        found->second.pop_back();
        kept_ -= size;
        return data;
    }

    bool put(size_t size, void* data) noexcept {
        if (size < smallest) return false;
        const std::lock_guard<std::mutex> lock(mutex_);
        if (size > limit_) return false;
        // Sizes that nobody asks for any more must not fill the stock for ever.
        if (kept_ > limit_ - size) clear();
        try {
            stock_[size].push_back(data);
        } catch (...) {
            return false;
        }
        kept_ += size;
        return true;
    }

    void keepNothingOnce() {
        const std::lock_guard<std::mutex> lock(mutex_);
        clear();
    }

    void clear() noexcept {
        for (auto& entry : stock_) {
            for (void* const data : entry.second) free(static_cast<char*>(data) - header);
        }
        stock_.clear();
        kept_ = 0;
    }

    std::mutex mutex_;
    std::unordered_map<size_t, std::vector<void*>> stock_;
    uint64_t kept_ = 0;
    uint64_t limit_ = 0;
};

void memoryKeep(uint64_t bytes) noexcept {
    try {
        StockAllocator::shared().keep(bytes);
    } catch (...) {
        // Nothing is kept then, which costs time alone.
    }
}

uint64_t memoryKept() noexcept {
    try {
        return StockAllocator::shared().kept();
    } catch (...) {
        return 0;
    }
}

// ---- What this is --------------------------------------------------------------------------

const char* lastErrorText() noexcept { return lastError.c_str(); }

const char* torchVersion() noexcept { return LINEUP_TORCH_VERSION; }

const char* cpuCapability() noexcept {
    try {
        static const auto* const text = new std::string(at::get_cpu_capability());
        return text->c_str();
    } catch (...) {
        return "unknown";
    }
}

const char* configuration() noexcept {
    try {
        static const auto* const text = new std::string(at::show_config());
        return text->c_str();
    } catch (...) {
        return "unknown";
    }
}

const ct_api table = {
    CT_API_VERSION,
    sizeof(ct_api),
    lastErrorText,
    tensorCopy,
    tensorView,
    tensorFree,
    tensorRetain,
    tensorDescribe,
    tensorItem,
    tensorRequireGradient,
    tensorDetach,
    operatorFind,
    operatorSchema,
    operatorArgumentCount,
    operatorCall,
    listFree,
    gradients,
    setGradientMode,
    gradientMode,
    autocastGet,
    autocastSet,
    setThreadCount,
    threadCount,
    numericsGet,
    numericsSet,
    seedGenerators,
    deviceCount,
    deviceMemory,
    deviceName,
    deviceSynchronize,
    deviceSelect,
    eventRecord,
    eventWait,
    eventQuery,
    eventFree,
    torchVersion,
    cpuCapability,
    configuration,
    memoryKeep,
    memoryKept,
};

}  // namespace

extern "C" CT_EXPORT const ct_api* ct_get_api(int32_t version) {
    return version == CT_API_VERSION ? &table : nullptr;
}
