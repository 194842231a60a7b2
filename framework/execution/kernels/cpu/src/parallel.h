// Loops over tasks on the threads of the OpenMP runtime that torch has loaded.
//
// Two runtimes in one process would fight over the cores, so nothing is linked: the symbols below resolve, when this
// library is loaded, to the runtime already there. Calling them by hand instead of `#pragma omp` keeps the source
// independent of the compiler's own runtime.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>

extern "C" void GOMP_parallel(void (*fn)(void*), void* data, unsigned num_threads, unsigned flags);

// Calls body(begin, end) for ranges that cover [0, count), handed out in order as threads get free.
template <typename Body>
static void parallel_for(int64_t count, int64_t chunk, int num_threads, const Body& body) {
    if (num_threads <= 1 || count <= chunk) {
        if (count > 0) body(int64_t(0), count);
        return;
    }
    struct Shared {
        const Body& body;
        int64_t count, chunk;
        std::atomic<int64_t> next;
    } shared{body, count, chunk, {0}};
    auto work = [](void* p) {
        Shared& s = *static_cast<Shared*>(p);
        for (;;) {
            int64_t begin = s.next.fetch_add(s.chunk, std::memory_order_relaxed);
            if (begin >= s.count) return;
            s.body(begin, std::min(begin + s.chunk, s.count));
        }
    };
    GOMP_parallel(work, &shared, unsigned(num_threads), 0);
}

// A buffer that a thread keeps from call to call.
template <typename T>
struct Scratch {
    T* data = nullptr;
    size_t size = 0;
    T* get(size_t n) {
        if (n > size) {
            free(data);
            size = (n * 5 / 4 + 63) / 64 * 64;
            data = static_cast<T*>(aligned_alloc(64, size * sizeof(T)));
            if (!data) abort();  // as any allocation of this size failing in the C++ runtime would
        }
        return data;
    }
    ~Scratch() { free(data); }
};
