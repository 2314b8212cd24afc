// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * weir's XDP program: which frames of a device go to weir's AF_XDP sockets.
 *
 * weir_dedicated   the device is weir's alone: every frame of a queue that has a socket.
 * weir_shared      the kernel keeps the device; weir takes
 *                    - UDP to its VTEP addresses and tunnel ports (RFC 7348),
 *                    - whatever is addressed to its prefixes,
 *                    - ICMP and ICMPv6 errors to a VTEP address that quote a packet of one of its tunnels.
 *                  All else passes: ARP, neighbour discovery, SSH, BGP, and non-first fragments to a VTEP address.
 * weir_stamped     as weir_dedicated, for measuring: the time of arrival stands in front of each frame.
 *
 * It needs no header but this file and no helper that is reserved to GPL programs, and runs on Linux 5.15 and later.
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

enum { XDP_PASS = 2, XDP_REDIRECT = 4 };
enum { MAP_TYPE_HASH = 1, MAP_TYPE_PERCPU_ARRAY = 6, MAP_TYPE_LPM_TRIE = 11, MAP_TYPE_XSKMAP = 17 };
enum { MAP_NO_PREALLOC = 1 };

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*const ktime)(void) = (void *)5;
static long (*const redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static long (*const adjust_meta)(struct xdp_md *ctx, int delta) = (void *)54;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((u16)__builtin_bswap16(x))
#define be32(x) ((u32)__builtin_bswap32(x))
#else
#define be16(x) ((u16)(x))
#define be32(x) ((u32)(x))
#endif

/* ---- maps ---- */

/* Queue number -> AF_XDP socket. User space sets the size to the number of queues. */
struct {
	__uint(type, MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u32);
} sockets SEC(".maps");

/* IPv4 stands as ::ffff:a.b.c.d; the port is in network order. */
struct vtep {
	u32 address[4];
	u16 port;
	u16 zero;
};

struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct vtep);
	__type(value, u8);
} vteps SEC(".maps");

/* The longest prefix decides: 1 takes, 0 leaves to the kernel what a shorter one would take. */
struct prefix4 {
	u32 length;
	u32 address;
};

struct {
	__uint(type, MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, u8);
} prefixes4 SEC(".maps");

struct prefix6 {
	u32 length;
	u32 address[4];
};

struct {
	__uint(type, MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, u8);
} prefixes6 SEC(".maps");

enum { REDIRECTED, PASSED, NO_SOCKET, COUNTERS };

struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

/* ---- headers ---- */

struct ethernet {
	u8 destination[6];
	u8 source[6];
	u16 type;
};

struct vlan {
	u16 tci;
	u16 type;
};

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6 {
	u32 version_flow;
	u16 length;
	u8 next;
	u8 hop_limit;
	u32 source[4];
	u32 destination[4];
};

struct udp {
	u16 source;
	u16 destination;
	u16 length;
	u16 checksum;
};

struct icmp {
	u8 type;
	u8 code;
	u16 checksum;
	u32 rest;
};

enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd, ETHERTYPE_VLAN = 0x8100, ETHERTYPE_QINQ = 0x88a8 };
enum { PROTOCOL_ICMP = 1, PROTOCOL_UDP = 17, PROTOCOL_ICMPV6 = 58 };

/* ---- what is weir's ---- */

INLINE void count(u32 which)
{
	u64 *counter = map_lookup(&counters, &which);

	if (counter)
		*counter += 1;
}

INLINE int is_vtep4(u32 address, u16 port)
{
	struct vtep key = { .address = { 0, 0, be32(0xffff), address }, .port = port };

	return map_lookup(&vteps, &key) != 0;
}

INLINE int is_vtep6(const u32 *address, u16 port)
{
	struct vtep key = { .address = { address[0], address[1], address[2], address[3] }, .port = port };

	return map_lookup(&vteps, &key) != 0;
}

/* RFC 792: unreachable (with "fragmentation needed"), time exceeded and parameter problem quote header and 8 bytes. */
INLINE int quotes_tunnel4(void *at, void *end, u32 vtep)
{
	struct icmp *icmp = at;
	struct ipv4 *quoted = (void *)(icmp + 1);
	struct udp *udp;
	u32 ihl;

	if ((void *)(quoted + 1) > end)
		return 0;
	if (icmp->type != 3 && icmp->type != 11 && icmp->type != 12)
		return 0;
	ihl = (quoted->version_ihl & 15) * 4;
	if (quoted->version_ihl >> 4 != 4 || ihl < sizeof(*quoted))
		return 0;
	if (quoted->protocol != PROTOCOL_UDP || quoted->fragment & be16(0x1fff))
		return 0;
	if (quoted->source != vtep)
		return 0;
	udp = (void *)quoted + ihl;
	if ((void *)(udp + 1) > end)
		return 0;
	return is_vtep4(quoted->source, udp->destination);
}

/* RFC 4443: types 1 to 4 are destination unreachable, packet too big, time exceeded, parameter problem. */
INLINE int quotes_tunnel6(void *at, void *end, const u32 *vtep)
{
	struct icmp *icmp = at;
	struct ipv6 *quoted = (void *)(icmp + 1);
	struct udp *udp = (void *)(quoted + 1);

	if ((void *)(udp + 1) > end)
		return 0;
	if (icmp->type < 1 || icmp->type > 4 || quoted->next != PROTOCOL_UDP)
		return 0;
	if (quoted->source[0] != vtep[0] || quoted->source[1] != vtep[1] || quoted->source[2] != vtep[2] ||
	    quoted->source[3] != vtep[3])
		return 0;
	return is_vtep6(quoted->source, udp->destination);
}

INLINE int is_ours4(void *at, void *end)
{
	struct ipv4 *ip = at;
	struct prefix4 key;
	struct udp *udp;
	u8 *taken;
	u32 ihl;

	if ((void *)(ip + 1) > end)
		return 0;
	key.length = 32;
	key.address = ip->destination;
	taken = map_lookup(&prefixes4, &key);
	if (taken && *taken)
		return 1;
	ihl = (ip->version_ihl & 15) * 4;
	/* A later fragment has no ports: the kernel may reassemble it, weir's tunnels take none (RFC 7348, 4.3). */
	if (ihl < sizeof(*ip) || ip->fragment & be16(0x1fff))
		return 0;
	if (ip->protocol == PROTOCOL_ICMP)
		return quotes_tunnel4((void *)ip + ihl, end, ip->destination);
	if (ip->protocol != PROTOCOL_UDP)
		return 0;
	udp = (void *)ip + ihl;
	if ((void *)(udp + 1) > end)
		return 0;
	return is_vtep4(ip->destination, udp->destination);
}

INLINE int is_ours6(void *at, void *end)
{
	struct ipv6 *ip = at;
	struct prefix6 key;
	struct udp *udp = (void *)(ip + 1);
	u8 *taken;

	if ((void *)(ip + 1) > end)
		return 0;
	key.length = 128;
	for (int i = 0; i < 4; i++)
		key.address[i] = ip->destination[i];
	taken = map_lookup(&prefixes6, &key);
	if (taken && *taken)
		return 1;
	if (ip->next == PROTOCOL_ICMPV6)
		return quotes_tunnel6(udp, end, ip->destination);
	if (ip->next != PROTOCOL_UDP || (void *)(udp + 1) > end)
		return 0;
	return is_vtep6(ip->destination, udp->destination);
}

INLINE int is_ours(struct xdp_md *ctx)
{
	void *at = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = at;
	u16 type;

	if ((void *)(ethernet + 1) > end)
		return 0;
	type = ethernet->type;
	at = ethernet + 1;
#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		struct vlan *vlan = at;

		if (type != be16(ETHERTYPE_VLAN) && type != be16(ETHERTYPE_QINQ))
			break;
		if ((void *)(vlan + 1) > end)
			return 0;
		type = vlan->type;
		at = vlan + 1;
	}
	if (type == be16(ETHERTYPE_IPV4))
		return is_ours4(at, end);
	if (type == be16(ETHERTYPE_IPV6))
		return is_ours6(at, end);
	return 0;
}

INLINE int redirect(struct xdp_md *ctx)
{
	/* The low bits of the flags are the answer for a queue without a socket: the kernel keeps the frame. */
	int verdict = redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);

	count(verdict == XDP_REDIRECT ? REDIRECTED : NO_SOCKET);
	return verdict;
}

SEC("xdp")
int weir_dedicated(struct xdp_md *ctx)
{
	return redirect(ctx);
}

SEC("xdp")
int weir_shared(struct xdp_md *ctx)
{
	if (is_ours(ctx))
		return redirect(ctx);
	count(PASSED);
	return XDP_PASS;
}

/* A word that says that the next one is a time (CLOCK_MONOTONIC in ns): the same in src/io/afxdp/port.rs. */
#define STAMP_MARK 0x7765697273746d70ULL

SEC("xdp")
int weir_stamped(struct xdp_md *ctx)
{
	u64 now = ktime();

	/* A driver without metadata refuses: the frame then goes without. */
	if (!adjust_meta(ctx, -16)) {
		u64 *meta = (void *)(long)ctx->data_meta;

		if ((void *)(meta + 2) <= (void *)(long)ctx->data) {
			meta[0] = STAMP_MARK;
			meta[1] = now;
		}
	}
	return redirect(ctx);
}

char _license[] SEC("license") = "Apache-2.0";
