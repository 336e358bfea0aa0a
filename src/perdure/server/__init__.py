"""What serves sockets and processes: accepting, limits of slow clients, supervision of workers."""
