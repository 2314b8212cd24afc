// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * The packet generator of `weir-bench wire`: run by BPF_PROG_RUN with live frames (Linux 5.18), it sends one packet of the deck each
 * time it is called and one is due, out of a device.
 *
 * The kernel recycles the pages of frames, and whoever received them may have written to them: so the whole packet is written each
 * time. What differs from packet to packet is the signature at its end (bench/src/wire/signature.rs).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) type *name

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

enum { XDP_DROP = 1 };
enum { MAP_TYPE_ARRAY = 2 };

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*const ktime)(void) = (void *)5;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static long (*const store_bytes)(struct xdp_md *ctx, u32 offset, void *from, u32 len) = (void *)190;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((u16)__builtin_bswap16((u16)(x)))
#else
#define be16(x) ((u16)(x))
#endif

/* Longest packet of the deck; set before loading. */
const volatile u32 slot = 2048;

/* What user space asks for, and what was done. The same in bench/src/wire/generator/live.rs. */
struct control {
	u64 start;    /* departure of packet 0, CLOCK_MONOTONIC in ns; 0: the first run says so */
	u64 interval; /* between departures, ns * 2^20; 0: as fast as possible */
	u64 stop;     /* nothing is sent after this time; before the start, how long after it */
	u64 count;    /* packets wanted */
	u64 next;     /* packets sent */
	u64 late;     /* the longest that a packet left after its time, in ns */
	u32 cards;    /* packets in the deck */
	u32 card;     /* the next of them */
	u32 ifindex;  /* the device */
	u32 run;      /* number of the trial */
};

struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

/* Packets: length, stream, then `slot` bytes. */
struct card {
	u16 len;
	u16 stream;
	u8 bytes[];
};

struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 2052);
} deck SEC(".maps");

/* Next sequence number of each stream. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} sequences SEC(".maps");

enum { SIGNATURE = 18, SHORTEST = 60 };

/* The one's complement sum of a signature is zero, so that no checksum over it changes. */
INLINE void sign(u16 *words, u32 run, u32 stream, u32 sequence, u64 time)
{
	u32 sum;

	words[0] = be16(run);
	words[1] = be16(stream);
	words[2] = be16(sequence >> 16);
	words[3] = be16(sequence);
	words[4] = be16(time >> 48);
	words[5] = be16(time >> 32);
	words[6] = be16(time >> 16);
	words[7] = be16(time);
	sum = words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	words[8] = (u16)~sum;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	u32 zero = 0, at, len, stream;
	u16 signature[9];
	struct control *control_ = map_lookup(&control, &zero);
	struct card *card;
	u32 *sequence;
	u64 now, due;
	int delta;

	if (!control_ || control_->next >= control_->count)
		return XDP_DROP;
	now = ktime();
	/* The kernel may take long to get here. */
	if (!control_->start) {
		control_->start = now;
		control_->stop += now;
	}
	due = now;
	if (control_->interval) {
		/* The product stays below 2^64 for five hours. */
		due = control_->start + ((control_->next * control_->interval) >> 20);
		if (now < due)
			return XDP_DROP;
	}
	if (now > control_->stop) {
		control_->count = control_->next;
		return XDP_DROP;
	}
	at = control_->card;
	card = map_lookup(&deck, &at);
	if (!card)
		return XDP_DROP;
	len = card->len;
	stream = card->stream;
	sequence = map_lookup(&sequences, &stream);
	if (!sequence || len < SHORTEST || len > slot)
		return XDP_DROP;
	delta = (int)len - (int)(ctx->data_end - ctx->data);
	if (delta && adjust_tail(ctx, delta))
		return XDP_DROP;
	if (store_bytes(ctx, 0, card->bytes, len))
		return XDP_DROP;
	sign(signature, control_->run, stream, *sequence, due);
	if (store_bytes(ctx, len - SIGNATURE, signature, SIGNATURE))
		return XDP_DROP;
	*sequence += 1;
	control_->next += 1;
	at += 1;
	control_->card = at < control_->cards ? at : 0;
	if (now - due > control_->late)
		control_->late = now - due;
	return redirect(control_->ifindex, 0);
}

char _license[] SEC("license") = "Apache-2.0";
