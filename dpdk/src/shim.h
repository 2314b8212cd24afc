/*
 * What weir uses of DPDK: inline functions, given a symbol, and calls whose structures differ from one version of DPDK to the next,
 * reduced to what weir gives and wants to know. Offsets in an mbuf are told as constants for the same reason.
 */
#ifndef WEIR_DPDK_SHIM_H
#define WEIR_DPDK_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

enum {
    WEIR_MBUF_SIZE = sizeof(struct rte_mbuf),
    WEIR_MBUF_REARM = offsetof(struct rte_mbuf, data_off),
    WEIR_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
    WEIR_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
    WEIR_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
    WEIR_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
    WEIR_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
    WEIR_MBUF_NEXT = offsetof(struct rte_mbuf, next),
    WEIR_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
    WEIR_HEADROOM = RTE_PKTMBUF_HEADROOM,
    WEIR_MAX_PORTS = RTE_MAX_ETHPORTS,
};

/* One word of four fields, in this order, starts at data_off. */
_Static_assert(offsetof(struct rte_mbuf, refcnt) == offsetof(struct rte_mbuf, data_off) + 2, "mbuf");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == offsetof(struct rte_mbuf, data_off) + 4, "mbuf");
_Static_assert(offsetof(struct rte_mbuf, port) == offsetof(struct rte_mbuf, data_off) + 6, "mbuf");
_Static_assert(offsetof(struct rte_mbuf, data_off) % 8 == 0, "mbuf");
/* And another of three at pkt_len, on the same line. */
_Static_assert(offsetof(struct rte_mbuf, data_len) == offsetof(struct rte_mbuf, pkt_len) + 4, "mbuf");
_Static_assert(offsetof(struct rte_mbuf, vlan_tci) == offsetof(struct rte_mbuf, pkt_len) + 6, "mbuf");
_Static_assert(offsetof(struct rte_mbuf, vlan_tci) + 2 <= 64, "mbuf");

/* Takes a line of EAL's log: its level (1 to 8, as syslog's plus one), text, length. */
typedef void (*weir_log_line)(uint32_t level, const char *text, size_t length);

/* What a device is. */
struct weir_about {
    char driver[64];
    char device[64];
    char bus[16];
    uint8_t mac[6];
    uint16_t max_rx_queues;
    uint16_t max_tx_queues;
    uint16_t min_mtu;
    uint16_t max_mtu;
    uint32_t max_rx_pktlen;
};

/* How a device is configured. */
struct weir_settings {
    uint16_t queues;
    uint16_t rx_ring;
    uint16_t tx_ring;
    uint16_t mtu; /* 0: the device's own. */
    struct rte_mempool *pool;
};

/* What was obtained, and at which step it failed. */
struct weir_obtained {
    const char *step;
    uint16_t rx_ring;
    uint16_t tx_ring;
    bool rss;
    bool symmetric;
    bool fast_free;
    bool scattered;
};

struct weir_stats {
    uint64_t rx_missed;
    uint64_t rx_errors;
    uint64_t rx_no_mbuf;
    uint64_t tx_errors;
};

struct weir_link {
    bool up;
    bool full_duplex;
    uint32_t mbit;
};

typedef void (*weir_device_gone)(uint16_t port);

uint16_t weir_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t weir_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
void weir_mbuf_free(struct rte_mbuf *mbuf);
int weir_errno(void);
uint32_t weir_lcore(void);
int weir_log_to(weir_log_line line);

int weir_mempool_register(rte_mempool_enqueue_t enqueue, rte_mempool_dequeue_t dequeue, rte_mempool_get_count count);
struct rte_mempool *weir_mempool_create(const char *name, uint32_t count, uint16_t room, uint32_t cache, int numa);
void weir_mempool_set_owner(struct rte_mempool *pool, void *owner);
int weir_mempool_holds(struct rte_mempool *pool, void *address, size_t length);
void *weir_mempool_owner(const struct rte_mempool *pool);
void weir_mempool_put(struct rte_mempool *pool, void *const *mbufs, unsigned int count);
void weir_mempool_flush(struct rte_mempool *pool);
void weir_mbuf_init(struct rte_mempool *pool, struct rte_mbuf *mbuf, void *chunk, uint16_t length);

int weir_port_of(const char *device, uint16_t *port);
int weir_about(uint16_t port, struct weir_about *about);
int weir_configure(uint16_t port, const struct weir_settings *settings, struct weir_obtained *obtained);
int weir_set_mac(uint16_t port, const uint8_t mac[6]);
int weir_mac(uint16_t port, uint8_t mac[6]);
int weir_stats(uint16_t port, struct weir_stats *stats);
int weir_link(uint16_t port, struct weir_link *link);
int weir_watch(uint16_t port, weir_device_gone gone);
void weir_unwatch(uint16_t port);
struct rte_device *weir_device(uint16_t port);
int weir_remove(struct rte_device *device);
int weir_dma_map(struct rte_device *device, void *address, size_t length, size_t page);
int weir_register_memory(void *address, size_t length, size_t page);

#endif
