"""Brokers' queues as sources for `@app.queue`. Each needs a library: extras `queues` and `azure`."""

from perdure.triggers.brokers.azure_storage import AzureStorageQueue
from perdure.triggers.brokers.rabbitmq import RabbitMQ
from perdure.triggers.brokers.redis_streams import RedisStream

__all__ = ["AzureStorageQueue", "RabbitMQ", "RedisStream"]
