/* See shim.h. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_bus.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_log.h>
#include <rte_malloc.h>

static const char OPS[] = "weir";

uint16_t weir_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t weir_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_tx_burst(port, queue, mbufs, count);
}

void weir_mbuf_free(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free(mbuf);
}

int weir_errno(void)
{
    return rte_errno;
}

uint32_t weir_lcore(void)
{
    return rte_lcore_id();
}

/* The log. */

static weir_log_line log_line;

static ssize_t log_write(void *cookie, const char *text, size_t length)
{
    (void)cookie;
    /* EAL flushes after each message, in the thread that writes it, so the level is that of this text. */
    int level = rte_log_cur_msg_loglevel();
    log_line(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, length);
    return (ssize_t)length;
}

int weir_log_to(weir_log_line line)
{
    static const cookie_io_functions_t functions = { .write = log_write };
    log_line = line;
    FILE *stream = fopencookie(NULL, "w", functions);
    if (stream == NULL)
        return -errno;
    return rte_openlog_stream(stream) == 0 ? 0 : -EINVAL;
}

/* The mempool. */

static int mempool_alloc(struct rte_mempool *pool)
{
    (void)pool;
    return 0;
}

static void mempool_free(struct rte_mempool *pool)
{
    (void)pool;
}

int weir_mempool_register(rte_mempool_enqueue_t enqueue, rte_mempool_dequeue_t dequeue, rte_mempool_get_count count)
{
    struct rte_mempool_ops ops = { .alloc = mempool_alloc, .free = mempool_free };
    memcpy(ops.name, OPS, sizeof(OPS));
    ops.enqueue = enqueue;
    ops.dequeue = dequeue;
    ops.get_count = count;
    return rte_mempool_register_ops(&ops);
}

struct rte_mempool *weir_mempool_create(const char *name, uint32_t count, uint16_t room, uint32_t cache, int numa)
{
    struct rte_pktmbuf_pool_private about = { .mbuf_data_room_size = room };
    struct rte_mempool *pool = rte_mempool_create_empty(name, count, sizeof(struct rte_mbuf), cache, sizeof(about), numa,
                                                        RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    if (pool == NULL)
        return NULL;
    if (rte_mempool_set_ops_byname(pool, OPS, NULL) != 0) {
        rte_mempool_free(pool);
        return NULL;
    }
    /* The ops have nothing to allocate, and the objects are ours: what populating would do is done here. */
    pool->flags |= RTE_MEMPOOL_F_POOL_CREATED;
    pool->populated_size = count;
    rte_pktmbuf_pool_init(pool, &about);
    return pool;
}

/* Tells drivers that walk the memory of a pool, to register it with their device, about a range. */
int weir_mempool_holds(struct rte_mempool *pool, void *address, size_t length)
{
    struct rte_mempool_memhdr *range = rte_zmalloc("weir_memhdr", sizeof(*range), 0);
    if (range == NULL)
        return -ENOMEM;
    range->mp = pool;
    range->addr = address;
    range->iova = (rte_iova_t)(uintptr_t)address;
    range->len = length;
    STAILQ_INSERT_TAIL(&pool->mem_list, range, next);
    pool->nb_mem_chunks++;
    return 0;
}

void weir_mempool_set_owner(struct rte_mempool *pool, void *owner)
{
    pool->pool_data = owner;
}

void *weir_mempool_owner(const struct rte_mempool *pool)
{
    return pool->pool_data;
}

void weir_mempool_put(struct rte_mempool *pool, void *const *mbufs, unsigned int count)
{
    rte_mempool_put_bulk(pool, mbufs, count);
}

void weir_mempool_flush(struct rte_mempool *pool)
{
    struct rte_mempool_cache *cache = rte_mempool_default_cache(pool, rte_lcore_id());
    if (cache != NULL)
        rte_mempool_cache_flush(cache, pool);
}

void weir_mbuf_init(struct rte_mempool *pool, struct rte_mbuf *mbuf, void *chunk, uint16_t length)
{
    memset(mbuf, 0, sizeof(*mbuf));
    mbuf->buf_addr = chunk;
    rte_mbuf_iova_set(mbuf, (rte_iova_t)(uintptr_t)chunk);
    mbuf->buf_len = length;
    mbuf->data_off = RTE_MIN((uint16_t)RTE_PKTMBUF_HEADROOM, length);
    mbuf->pool = pool;
    mbuf->nb_segs = 1;
    mbuf->port = RTE_MBUF_PORT_INVALID;
    rte_mbuf_refcnt_set(mbuf, 1);
    mbuf->next = NULL;
}

/* Devices. */

static void copy_name(char *to, size_t room, const char *from)
{
    snprintf(to, room, "%s", from == NULL ? "" : from);
}

/* The first port of a device: by its own name, which most have, or by that of the device under it. */
int weir_port_of(const char *device, uint16_t *port)
{
    if (rte_eth_dev_get_port_by_name(device, port) == 0)
        return 0;
    uint16_t each;
    RTE_ETH_FOREACH_DEV(each) {
        struct rte_device *under = weir_device(each);
        if (under != NULL && strcmp(rte_dev_name(under), device) == 0) {
            *port = each;
            return 0;
        }
    }
    return -ENODEV;
}

struct rte_device *weir_device(uint16_t port)
{
    struct rte_eth_dev_info info;
    return rte_eth_dev_info_get(port, &info) == 0 ? info.device : NULL;
}

int weir_about(uint16_t port, struct weir_about *about)
{
    struct rte_eth_dev_info info;
    int error = rte_eth_dev_info_get(port, &info);
    if (error != 0)
        return error;
    memset(about, 0, sizeof(*about));
    copy_name(about->driver, sizeof(about->driver), info.driver_name);
    if (info.device != NULL) {
        copy_name(about->device, sizeof(about->device), rte_dev_name(info.device));
        copy_name(about->bus, sizeof(about->bus), rte_bus_name(rte_dev_bus(info.device)));
    }
    about->max_rx_queues = info.max_rx_queues;
    about->max_tx_queues = info.max_tx_queues;
    about->min_mtu = info.min_mtu;
    about->max_mtu = info.max_mtu;
    about->max_rx_pktlen = info.max_rx_pktlen;
    return weir_mac(port, about->mac);
}

/* Most NICs hash with a key of 40 or 52 bytes. Repeating these two makes Toeplitz symmetric: both directions of a connection get
   the same queue. */
static const uint8_t SYMMETRIC[2] = { 0x6d, 0x5a };
static uint8_t rss_key[256];

static void spread(const struct rte_eth_dev_info *info, struct rte_eth_conf *conf, struct weir_obtained *obtained)
{
    uint64_t wanted = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
    conf->rx_adv_conf.rss_conf.rss_hf = wanted & info->flow_type_rss_offloads;
    if (conf->rx_adv_conf.rss_conf.rss_hf == 0)
        return;
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    obtained->rss = true;
    if (info->hash_key_size == 0)
        return;
    for (size_t at = 0; at < sizeof(rss_key); at++)
        rss_key[at] = SYMMETRIC[at % 2];
    conf->rx_adv_conf.rss_conf.rss_key = rss_key;
    conf->rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
    obtained->symmetric = true;
}

static int configure(uint16_t port, const struct weir_settings *settings, struct rte_eth_conf *conf,
                     const struct rte_eth_dev_info *info, struct weir_obtained *obtained)
{
    int error = rte_eth_dev_configure(port, settings->queues, settings->queues, conf);
    if (error != 0 && obtained->symmetric) {
        /* A device may keep its key to itself. */
        conf->rx_adv_conf.rss_conf.rss_key = NULL;
        conf->rx_adv_conf.rss_conf.rss_key_len = 0;
        obtained->symmetric = false;
        error = rte_eth_dev_configure(port, settings->queues, settings->queues, conf);
    }
    (void)info;
    return error;
}

int weir_configure(uint16_t port, const struct weir_settings *settings, struct weir_obtained *obtained)
{
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof(conf));
    memset(obtained, 0, sizeof(*obtained));
    obtained->step = "read what it is";
    int error = rte_eth_dev_info_get(port, &info);
    if (error != 0)
        return error;

    conf.rxmode.mtu = settings->mtu;
    if (settings->queues > 1)
        spread(&info, &conf, obtained);
    /* Every frame that a queue sends is of one pool, and has one owner: what fast free asks for. */
    conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    obtained->fast_free = conf.txmode.offloads != 0;
    obtained->step = "configure it";
    error = configure(port, settings, &conf, &info, obtained);
    if (error != 0)
        return error;

    obtained->rx_ring = settings->rx_ring;
    obtained->tx_ring = settings->tx_ring;
    obtained->step = "choose the length of its rings";
    error = rte_eth_dev_adjust_nb_rx_tx_desc(port, &obtained->rx_ring, &obtained->tx_ring);
    if (error != 0)
        return error;

    int numa = rte_eth_dev_socket_id(port);
    struct rte_eth_rxconf rx = info.default_rxconf;
    rx.offloads = 0;
    struct rte_eth_txconf tx = info.default_txconf;
    tx.offloads = conf.txmode.offloads;
    for (uint16_t queue = 0; queue < settings->queues; queue++) {
        obtained->step = "set up a receive queue";
        error = rte_eth_rx_queue_setup(port, queue, obtained->rx_ring, numa, &rx, settings->pool);
        if (error != 0)
            return error;
        obtained->step = "set up a transmit queue";
        error = rte_eth_tx_queue_setup(port, queue, obtained->tx_ring, numa, &tx);
        if (error != 0)
            return error;
    }

    obtained->step = "start it";
    error = rte_eth_dev_start(port);
    if (error != 0)
        return error;
    struct rte_eth_rxq_info queue;
    obtained->scattered = rte_eth_rx_queue_info_get(port, 0, &queue) == 0 && queue.scattered_rx != 0;
    return 0;
}

int weir_set_mac(uint16_t port, const uint8_t mac[6])
{
    struct rte_ether_addr address;
    memcpy(address.addr_bytes, mac, 6);
    return rte_eth_dev_default_mac_addr_set(port, &address);
}

int weir_mac(uint16_t port, uint8_t mac[6])
{
    struct rte_ether_addr address;
    int error = rte_eth_macaddr_get(port, &address);
    if (error == 0)
        memcpy(mac, address.addr_bytes, 6);
    return error;
}

int weir_stats(uint16_t port, struct weir_stats *stats)
{
    struct rte_eth_stats all;
    int error = rte_eth_stats_get(port, &all);
    if (error != 0)
        return error;
    stats->rx_missed = all.imissed;
    stats->rx_errors = all.ierrors;
    stats->rx_no_mbuf = all.rx_nombuf;
    stats->tx_errors = all.oerrors;
    return 0;
}

int weir_link(uint16_t port, struct weir_link *link)
{
    struct rte_eth_link now;
    memset(&now, 0, sizeof(now));
    int error = rte_eth_link_get_nowait(port, &now);
    if (error != 0)
        return error;
    link->up = now.link_status == RTE_ETH_LINK_UP;
    link->full_duplex = now.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    link->mbit = now.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : now.link_speed;
    return 0;
}

/* Events come in EAL's interrupt thread. */

static weir_device_gone device_gone;

static int on_port_event(uint16_t port, enum rte_eth_event_type event, void *argument, void *more)
{
    (void)event;
    (void)argument;
    (void)more;
    device_gone(port);
    return 0;
}

static void on_device_event(const char *device, enum rte_dev_event_type event, void *argument)
{
    (void)device;
    if (event == RTE_DEV_EVENT_REMOVE)
        device_gone((uint16_t)(uintptr_t)argument);
}

int weir_watch(uint16_t port, weir_device_gone gone)
{
    device_gone = gone;
    int error = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RMV, on_port_event, NULL);
    if (error == 0)
        error = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RESET, on_port_event, NULL);
    struct rte_device *device = weir_device(port);
    if (error == 0 && device != NULL)
        error = rte_dev_event_callback_register(rte_dev_name(device), on_device_event, (void *)(uintptr_t)port);
    return error;
}

void weir_unwatch(uint16_t port)
{
    struct rte_device *device = weir_device(port);
    if (device != NULL)
        rte_dev_event_callback_unregister(rte_dev_name(device), on_device_event, (void *)(uintptr_t)port);
    rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RESET, on_port_event, NULL);
    rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RMV, on_port_event, NULL);
}

int weir_remove(struct rte_device *device)
{
    return rte_dev_remove(device);
}

/* Tells EAL about memory that is not its own, at the addresses that the process has it at. */
int weir_register_memory(void *address, size_t length, size_t page)
{
    size_t pages = length / page;
    rte_iova_t *table = calloc(pages, sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    for (size_t at = 0; at < pages; at++)
        table[at] = (rte_iova_t)(uintptr_t)address + at * page;
    int error = rte_extmem_register(address, length, table, (unsigned int)pages, page);
    free(table);
    return error == 0 || rte_errno == EEXIST ? 0 : -rte_errno;
}

int weir_dma_map(struct rte_device *device, void *address, size_t length, size_t page)
{
    int error = weir_register_memory(address, length, page);
    if (error != 0)
        return error;
    /* Devices of one IOMMU container share their mappings: the second to ask is told that it is there. */
    error = rte_dev_dma_map(device, address, (rte_iova_t)(uintptr_t)address, length);
    return error == 0 || rte_errno == EEXIST ? 0 : -rte_errno;
}
