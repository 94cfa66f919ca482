// The C face of LibTorch that `Tensors` builds on.
//
// The library behind it (libCTorch.so, compiled from CTorch.cpp against one LibTorch) is opened at
// run time with RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND and is never linked. It exports one symbol,
// `ct_get_api`, which hands out the table of functions below.
//
// Rules that hold for every function:
// - No C++ exception leaves it. It returns a `ct_status`; anything but CT_OK leaves a message that
//   `last_error` returns on the same thread.
// - On failure, results are set to NULL or 0 and nothing has to be freed.
// - Any thread may call it, unless it says that it concerns the calling thread. One tensor must not
//   be written by one thread while another reads it; reading from many threads is safe.
// - It computes nothing itself: all arithmetic is LibTorch's.
#ifndef LINEUP_CTORCH_H
#define LINEUP_CTORCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Raised when the meaning or the order of anything below changes; both sides compare it.
#define CT_API_VERSION 1

// More results than any operator returns.
#define CT_RESULTS_MAX 32

// One counted reference to a tensor. Created by this library, freed with `tensor_free`.
typedef struct ct_tensor_s *ct_tensor;

// An operator that was looked up. Lives as long as the process; never freed; any thread may use it.
typedef const struct ct_operator_s *ct_operator;

// A point in a device's work queue. Freed with `event_free`.
typedef struct ct_event_s *ct_event;

typedef int32_t ct_status;
enum {
    CT_OK = 0,
    CT_FAILED = 1,            // LibTorch threw; last_error holds its text without the C++ backtrace.
    CT_UNKNOWN_OPERATOR = 2,  // No operator, or no overload, has this name.
    CT_BAD_ARGUMENT = 3,      // An argument is missing, superfluous or of the wrong kind.
    CT_OUT_OF_MEMORY = 4      // Host or device memory ran out.
};

// What a `ct_value` holds.
enum {
    CT_NONE = 0,
    CT_TENSOR = 1,            // tensor
    CT_INTEGER = 2,           // integer; also dtypes, memory formats and layouts
    CT_REAL = 3,              // real
    CT_BOOLEAN = 4,           // integer, 0 or 1
    CT_INTEGERS = 5,          // list: const int64_t *, count
    CT_REALS = 6,             // list: const double *, count
    CT_BOOLEANS = 7,          // list: const int64_t * of 0 and 1, count
    CT_TENSORS = 8,           // list: const ct_tensor *, count; NULL entries are None
    CT_STRING = 9,            // list: const char * in UTF-8, count bytes
    CT_DEVICE = 10,           // integer: device type << 8 | (index + 1)
    CT_DEFAULT = 11           // argument only: the schema's default
};

// One argument or result of an operator.
//
// As an argument everything is borrowed for the duration of the call. As a result, a tensor and the
// entries of a CT_TENSORS list are new references that the caller frees one by one with
// `tensor_free`, and then, for any kind with a list, the list itself with `list_free`.
typedef struct {
    int32_t kind;
    int32_t reserved;
    ct_tensor tensor;
    int64_t integer;
    double real;
    const void *list;
    int64_t count;
} ct_value;

// Device types and scalar types, numbered as LibTorch numbers them.
enum { CT_CPU = 0, CT_CUDA = 1 };
enum {
    CT_UINT8 = 0,
    CT_INT8 = 1,
    CT_INT16 = 2,
    CT_INT32 = 3,
    CT_INT64 = 4,
    CT_FLOAT16 = 5,
    CT_FLOAT32 = 6,
    CT_FLOAT64 = 7,
    CT_BOOL = 11,
    CT_BFLOAT16 = 15
};

// What `tensor_describe` reads off in one call.
typedef struct {
    int32_t dtype;
    int32_t device_type;
    int32_t device_index;     // -1 where the type has no index
    int32_t dimensions;
    int64_t count;            // elements
    int64_t storage_offset;   // elements
    const int64_t *shape;     // borrowed: valid while the handle lives and is not resized
    const int64_t *strides;   // borrowed likewise, in elements
    void *data;               // first element; NULL for empty tensors
    uint8_t is_contiguous;    // in the given shape's row-major order
    uint8_t is_channels_last; // four-dimensional and contiguous in NHWC order
    uint8_t requires_gradient;
    uint8_t is_leaf;          // not the result of a recorded operator
} ct_description;

// The thread's autocast setting for one device type.
typedef struct {
    int32_t enabled;
    int32_t dtype;
    int32_t cache;            // whether casts of weights are cached; one setting for all devices
} ct_autocast;

// Process-wide switches of the numeric behaviour.
typedef struct {
    int32_t deterministic;        // refuse operators without a deterministic kernel
    int32_t cudnn_deterministic;
    int32_t cudnn_benchmark;      // choose convolution kernels by timing them
    int32_t allow_tf32;           // in cuBLAS and cuDNN
    int32_t allow_reduced_sums;   // let cuBLAS add fp16 and bf16 products in their own precision
} ct_numerics;

typedef void (*ct_release)(void *context);

// The table of functions. Owned by the library, constant, valid as long as the process.
typedef struct {
    int32_t version;          // CT_API_VERSION of the library
    int32_t size;             // bytes of this struct in the library

    // The message of the last failure on the calling thread.
    // Owned by the library; valid until the thread's next failing call.
    const char *(*last_error)(void);

    // ---- Tensors -----------------------------------------------------------------------------

    // A new CPU tensor in row-major order with a copy of `count` elements' bytes of `data`
    // (`data` may be NULL for an empty tensor). The caller frees the result.
    ct_status (*tensor_copy)(
        const void *data, const int64_t *shape, int32_t dimensions, int32_t dtype, ct_tensor *out);

    // A tensor over memory that it does not own, without a copy. `strides` (in elements) may be
    // NULL for row-major order. `release(context)` is called once, on whichever thread drops the
    // last reference, also when this function fails; it may be NULL. The caller keeps `data` valid
    // until then, and frees the result.
    ct_status (*tensor_view)(
        void *data, const int64_t *shape, const int64_t *strides, int32_t dimensions, int32_t dtype,
        int32_t device_type, int32_t device_index, ct_release release, void *context,
        ct_tensor *out);

    // Gives one reference back. NULL is allowed.
    void (*tensor_free)(ct_tensor tensor);

    // A second reference to the same tensor. The caller frees it.
    ct_status (*tensor_retain)(ct_tensor tensor, ct_tensor *out);

    // Reads sizes, kind and place. Pointers in `out` are borrowed from the tensor.
    ct_status (*tensor_describe)(ct_tensor tensor, ct_description *out);

    // The single element of a tensor, converted to double. Waits for the device.
    ct_status (*tensor_item)(ct_tensor tensor, double *out);

    // Turns the recording of gradients on or off, on a leaf.
    ct_status (*tensor_require_gradient)(ct_tensor tensor, int32_t required);

    // The same data, without history. The caller frees the result.
    ct_status (*tensor_detach)(ct_tensor tensor, ct_tensor *out);

    // ---- Operators ---------------------------------------------------------------------------

    // Looks an operator up: `name` with its namespace ("aten::add"), `overload` ("Tensor" or "").
    // Slow (a lock and two maps); keep the result, which is never freed.
    ct_status (*operator_find)(const char *name, const char *overload, ct_operator *out);

    // The schema of an operator, as text. Owned by the operator.
    const char *(*operator_schema)(ct_operator op);

    // Number of arguments that the schema has.
    int32_t (*operator_argument_count)(ct_operator op);

    // Calls an operator through the dispatcher: autograd, autocast and device are respected.
    // Missing trailing arguments take the schema's defaults. Integers are taken where the schema
    // wants reals, and one integer where it wants a list of a fixed size.
    // `results` has room for `capacity` values; what it receives, the caller frees.
    // Modes (gradients, autocast, threads) are those of the calling thread.
    ct_status (*operator_call)(
        ct_operator op, const ct_value *arguments, int32_t argument_count, ct_value *results,
        int32_t capacity, int32_t *result_count);

    // Frees the list of a result. NULL is allowed.
    void (*list_free)(const void *list);

    // ---- Autograd ----------------------------------------------------------------------------

    // d(outputs)/d(inputs), as torch::autograd::grad with allow_unused: an input that was not used
    // gets NULL. `output_gradients` may be NULL when every output has one element; entries may be
    // NULL. Writes nothing into `.grad`. Runs CPU work on the calling thread, with its settings.
    // `gradients` has room for `input_count` handles, which the caller frees.
    ct_status (*gradients)(
        const ct_tensor *outputs, const ct_tensor *output_gradients, int32_t output_count,
        const ct_tensor *inputs, int32_t input_count, int32_t keep_graph, int32_t create_graph,
        ct_tensor *gradients);

    // Whether operators record a graph, for the calling thread; returns the setting before.
    int32_t (*set_gradient_mode)(int32_t enabled);
    int32_t (*gradient_mode)(void);

    // Autocast of the calling thread for one device type.
    ct_status (*autocast_get)(int32_t device_type, ct_autocast *out);
    // Also empties the thread's cache of cast weights.
    ct_status (*autocast_set)(int32_t device_type, const ct_autocast *setting);

    // ---- Threads and numerics ----------------------------------------------------------------

    // Threads that one operator may use when the calling OS thread calls it.
    ct_status (*set_thread_count)(int32_t count);
    int32_t (*thread_count)(void);

    // Process-wide. Set before the first work.
    ct_status (*numerics_get)(ct_numerics *out);
    ct_status (*numerics_set)(const ct_numerics *setting);

    // Seeds LibTorch's own generators (of every device). Process-wide.
    ct_status (*seed)(uint64_t seed);

    // ---- Devices -----------------------------------------------------------------------------

    // Devices of a type that can be used now; 0 where the library has no support for it. CT_CPU: 1.
    int32_t (*device_count)(int32_t device_type);

    // Free and total bytes of a CUDA device's memory.
    ct_status (*device_memory)(
        int32_t device_type, int32_t index, uint64_t *free_bytes, uint64_t *total_bytes);

    // The device's model, as the driver names it ("NVIDIA H100 80GB HBM3"), cut to `capacity`.
    ct_status (*device_name)(int32_t device_type, int32_t index, char *out, int32_t capacity);

    // Waits until the device has done everything it was given. Nothing to wait for on a CPU.
    ct_status (*device_synchronize)(int32_t device_type, int32_t index);

    // Makes a device the calling thread's current one.
    ct_status (*device_select)(int32_t device_type, int32_t index);

    // Marks the present end of the device's current queue (of the calling thread).
    // The caller frees the event.
    ct_status (*event_record)(int32_t device_type, int32_t index, ct_event *out);
    // Waits on the calling thread until the device has passed the event.
    ct_status (*event_wait)(ct_event event);
    // Sets `done` to 1 when the device has passed the event.
    ct_status (*event_query)(ct_event event, int32_t *done);
    void (*event_free)(ct_event event);

    // ---- What this is ------------------------------------------------------------------------

    // Texts owned by the library, valid as long as the process.
    const char *(*torch_version)(void);     // "2.13.0+cpu"
    const char *(*cpu_capability)(void);    // "AVX2", "AVX512" ...: the kernels that LibTorch chose
    const char *(*configuration)(void);     // LibTorch's own multi-line account of its build

    // ---- Host memory -------------------------------------------------------------------------

    // Keeps up to `bytes` of freed host memory of tensors for the next ones of the same size, so
    // that a training step, which asks for the same sizes each time, does not fetch and clear its
    // pages anew. 0 gives everything back and keeps nothing. Process-wide; may be called again.
    void (*memory_keep)(uint64_t bytes);

    // Bytes of freed host memory that are kept now.
    uint64_t (*memory_kept)(void);
} ct_api;

// The table, or NULL when the library cannot serve `version`. The only exported symbol.
const ct_api *ct_get_api(int32_t version);

typedef const ct_api *(*ct_get_api_function)(int32_t version);

#ifdef __cplusplus
}
#endif
#endif
