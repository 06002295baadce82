// The k items with the largest inner product with each query: an exact scan that reads every vector once.
//
// A sample of the items gives each query a score that a little more than k items are expected to reach (`take_sample`,
// `set_thresholds`). One pass over all items (`scan_*`) multiplies on the tensor cores and keeps only what reaches it,
// some thousands of millions of scores, so that no score but those ever goes to memory. What was kept is sorted
// (`sort_kept`). The counts tell the caller whether the guess was right: at least k kept, and no more than CAPACITY.
//
// Defined by whoever compiles: DIM, components of a vector (a multiple of 32); SAMPLE, rows of a sample (a multiple of
// 512); CAPACITY, scores kept for a query (a power of two).

typedef unsigned int u32;
typedef unsigned long long u64;

#define LANES 32
#define CHUNKS (DIM / 32)
#define WORDS (DIM / 8)                    // of 16 bytes, in a vector
#define ROW_TILES (DIM <= 64 ? 2 : 1)      // what a warp holds in registers is bounded
#define ROWS (16 * ROW_TILES)              // that a warp multiplies at a time
#define MINUS_INFINITY __int_as_float(0xff800000)
#define PLUS_INFINITY __int_as_float(0x7f800000)

// A float's bits, put so that they order like the floats; 0 is below every number.
__device__ __forceinline__ u32 ordered(float score) {
    const u32 bits = __float_as_uint(score);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float score_of(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ bool is_eligible(const unsigned char* bitmaps, u64 bitmap_bytes, u32 query, u32 row) {
    return bitmaps == nullptr || (bitmaps[query * bitmap_bytes + (row >> 3)] >> (row & 7) & 1);
}

// PTX's fragments of m16n8k16 want components 2t, 2t+1, 2t+8 and 2t+9 from thread t of four. A sum does not care which
// components are called that, so each thread brings the eight that lie together in memory, in vectors and queries alike.
__device__ __forceinline__ void multiply(float (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A warp's part of ROWS vectors: of each tile, rows g and g + 8, where g is the lane's group of four.
struct Vectors {
    uint4 words[ROW_TILES][2][CHUNKS];

    template <class RowOf>
    __device__ __forceinline__ void load(const uint4* items, RowOf row_of) {
        const u32 lane = threadIdx.x % LANES;
#pragma unroll
        for (int tile = 0; tile < ROW_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint4* row = items + (u64)row_of(tile * 16 + half * 8 + lane / 4) * WORDS + lane % 4;
#pragma unroll
                for (int chunk = 0; chunk < CHUNKS; ++chunk) words[tile][half][chunk] = __ldg(row + chunk * 4);
            }
    }
};

// Up to 8 * TILES queries in shared memory, in the order in which lanes take them.
template <int TILES>
struct Queries {
    uint4 words[TILES * CHUNKS * LANES];

    __device__ __forceinline__ void fill(const uint4* queries) {
        for (u32 place = threadIdx.x; place < TILES * CHUNKS * LANES; place += blockDim.x) {
            const u32 lane = place % LANES, chunk = place / LANES % CHUNKS, tile = place / LANES / CHUNKS;
            words[place] = queries[(tile * 8 + lane / 4) * WORDS + chunk * 4 + lane % 4];
        }
    }

    // sums[tile][i]: of row tile * 16 + (i / 2) * 8 + lane / 4 with query query_tile * 8 + lane % 4 * 2 + i % 2.
    __device__ __forceinline__ void products(const Vectors& vectors, int query_tile, float (&sums)[ROW_TILES][4]) const {
#pragma unroll
        for (int tile = 0; tile < ROW_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[tile][i] = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            const uint4 query = words[(query_tile * CHUNKS + chunk) * LANES + threadIdx.x % LANES];
#pragma unroll
            for (int tile = 0; tile < ROW_TILES; ++tile) {
                const uint4 low = vectors.words[tile][0][chunk], high = vectors.words[tile][1][chunk];
                multiply(sums[tile], low.x, high.x, low.y, high.y, query.x, query.y);
                multiply(sums[tile], low.z, high.z, low.w, high.w, query.z, query.w);
            }
        }
    }
};

// The row of a sample's position: one of each of `count` equal parts of the catalogue, so that no order of it misleads.
__device__ __forceinline__ u32 sampled_row(u32 position, u32 count, u32 item_count) {
    const u32 first = (u64)position * item_count / count, next = (u64)(position + 1) * item_count / count;
    u32 mixed = position * 0x9e3779b9u;
    mixed ^= mixed >> 16;
    mixed *= 0x85ebca6bu;
    mixed ^= mixed >> 13;
    return first + mixed % (next - first);
}

// samples (queries, SAMPLE): ordered scores of sampled items, 0 for those that are not eligible or not there.
template <int TILES>
__device__ __forceinline__ void take_sample(const uint4* items, u32 item_count, const uint4* queries,
                                            const unsigned char* bitmaps, u64 bitmap_bytes, u32 query_count,
                                            u32* samples) {
    __shared__ Queries<TILES> shared;
    shared.fill(queries);
    __syncthreads();
    const u32 lane = threadIdx.x % LANES, count = min(item_count, (u32)SAMPLE);
    const u32 first = (blockIdx.x * blockDim.x + threadIdx.x) / LANES * ROWS;
    if (first >= SAMPLE) return;
    auto row_of = [=](u32 place) { return sampled_row(min(first + place, count - 1), count, item_count); };
    Vectors vectors;
    vectors.load(items, row_of);
#pragma unroll 1
    for (int query_tile = 0; query_tile < TILES; ++query_tile) {
        float sums[ROW_TILES][4];
        shared.products(vectors, query_tile, sums);
#pragma unroll
        for (int tile = 0; tile < ROW_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const u32 place = tile * 16 + i / 2 * 8 + lane / 4, query = query_tile * 8 + lane % 4 * 2 + i % 2;
                if (query >= query_count) continue;
                const bool counts = first + place < count && is_eligible(bitmaps, bitmap_bytes, query, row_of(place));
                samples[query * SAMPLE + first + place] = counts ? ordered(sums[tile][i]) : 0;
            }
    }
}

template <int TILES>
__device__ __forceinline__ void scan(const uint4* items, u32 item_count, const uint4* queries,
                                     const unsigned char* bitmaps, u64 bitmap_bytes, u32 query_count,
                                     const float* thresholds, u32* counts, u64* kept) {
    __shared__ Queries<TILES> shared;
    __shared__ __align__(8) float least[TILES * 8];
    shared.fill(queries);
    for (u32 query = threadIdx.x; query < TILES * 8; query += blockDim.x)
        least[query] = query < query_count ? thresholds[query] : PLUS_INFINITY;
    __syncthreads();
    const u32 lane = threadIdx.x % LANES, tiles = (item_count + ROWS - 1) / ROWS;
    const u32 warps = gridDim.x * blockDim.x / LANES;
    u32 tile_of_rows = (blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    if (tile_of_rows >= tiles) return;
    Vectors vectors;
    vectors.load(items, [=](u32 place) { return min(tile_of_rows * ROWS + place, item_count - 1); });
    while (true) {
        const u32 next = tile_of_rows + warps;
        Vectors ahead;  // on their way while the tensor cores work
        if (next < tiles) ahead.load(items, [=](u32 place) { return min(next * ROWS + place, item_count - 1); });
#pragma unroll 1
        for (int query_tile = 0; query_tile < TILES; ++query_tile) {
            float sums[ROW_TILES][4];
            shared.products(vectors, query_tile, sums);
            const float2 need = *reinterpret_cast<const float2*>(least + query_tile * 8 + lane % 4 * 2);
#pragma unroll
            for (int tile = 0; tile < ROW_TILES; ++tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (!(sums[tile][i] >= (i % 2 ? need.y : need.x))) continue;
                    const u32 row = tile_of_rows * ROWS + tile * 16 + i / 2 * 8 + lane / 4;
                    const u32 query = query_tile * 8 + lane % 4 * 2 + i % 2;
                    if (row >= item_count || !is_eligible(bitmaps, bitmap_bytes, query, row)) continue;
                    const u32 place = atomicAdd(counts + query, 1);
                    // Larger first, and of equal scores the lower row.
                    if (place < CAPACITY) kept[(u64)query * CAPACITY + place] = (u64)ordered(sums[tile][i]) << 32 | ~row;
                }
        }
        if (next >= tiles) return;
        tile_of_rows = next;
        vectors = ahead;
    }
}

#define FOR_QUERIES(COUNT)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256) take_sample_##COUNT(                                             \
        const uint4* items, u32 item_count, const uint4* queries, const unsigned char* bitmaps, u64 bitmap_bytes,      \
        u32 query_count, u32* samples) {                                                                               \
        take_sample<COUNT / 8>(items, item_count, queries, bitmaps, bitmap_bytes, query_count, samples);               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2) scan_##COUNT(                                                 \
        const uint4* items, u32 item_count, const uint4* queries, const unsigned char* bitmaps, u64 bitmap_bytes,      \
        u32 query_count, const float* thresholds, u32* counts, u64* kept) {                                            \
        scan<COUNT / 8>(items, item_count, queries, bitmaps, bitmap_bytes, query_count, thresholds, counts, kept);     \
    }

FOR_QUERIES(8)
FOR_QUERIES(16)
FOR_QUERIES(32)
FOR_QUERIES(64)

// One block of 512 threads a query: the largest score, cut to 24 bits, that `ranks[query]` of its sample reach; minus
// infinity where fewer are eligible. Sets the query's count to zero.
extern "C" __global__ void __launch_bounds__(512) set_thresholds(const u32* samples, const u32* ranks,
                                                                float* thresholds, u32* counts) {
    __shared__ u32 reached[32];
    const u32 query = blockIdx.x, rank = ranks[query];
    if (threadIdx.x < 32) reached[threadIdx.x] = 0;
    u32 held[SAMPLE / 512];
#pragma unroll
    for (int i = 0; i < SAMPLE / 512; ++i) held[i] = samples[query * SAMPLE + i * 512 + threadIdx.x];
    __syncthreads();
    u32 threshold = 0;
    for (int bit = 31; bit >= 8; --bit) {
        const u32 higher = threshold | 1u << bit;
        u32 mine = 0;
#pragma unroll
        for (int i = 0; i < SAMPLE / 512; ++i) mine += held[i] >= higher;
        mine = __reduce_add_sync(0xffffffffu, mine);
        if (threadIdx.x % LANES == 0) atomicAdd(reached + bit, mine);
        __syncthreads();
        if (reached[bit] >= rank) threshold = higher;
    }
    if (threadIdx.x == 0) {
        thresholds[query] = threshold ? score_of(threshold) : MINUS_INFINITY;
        counts[query] = 0;
    }
}

// One block of 1024 threads a query, with CAPACITY * 8 bytes of shared memory: the best k of what was kept, best first;
// then rows of -1. rows int64 (queries, k), scores float32 (queries, k) and kept_counts, a copy of counts, may lie
// in the host's memory: writing there takes less than a copy that begins when all is sorted.
extern "C" __global__ void __launch_bounds__(1024) sort_kept(const u64* kept, const u32* counts, u32 k, long long* rows,
                                                            float* scores, u32* kept_counts) {
    extern __shared__ u64 keys[];
    if (threadIdx.x == 0) kept_counts[blockIdx.x] = counts[blockIdx.x];
    const u32 query = blockIdx.x, count = min(counts[query], (u32)CAPACITY);
    u32 size = 2;
    while (size < max(count, k)) size *= 2;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) keys[i] = i < count ? kept[(u64)query * CAPACITY + i] : 0;
    __syncthreads();
    for (u32 length = 2; length <= size; length *= 2)
        for (u32 stride = length / 2; stride > 0; stride /= 2) {
            for (u32 pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const u32 low = 2 * pair - (pair & (stride - 1)), high = low + stride;
                const u64 first = keys[low], second = keys[high];
                if ((first < second) == ((low & length) == 0)) keys[low] = second, keys[high] = first;
            }
            __syncthreads();
        }
    for (u32 i = threadIdx.x; i < k; i += blockDim.x) {
        const u64 key = keys[i];
        rows[(u64)query * k + i] = i < count ? (long long)(u32)~key : -1;
        scores[(u64)query * k + i] = i < count ? score_of(key >> 32) : MINUS_INFINITY;
    }
}
