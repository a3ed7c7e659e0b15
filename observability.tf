# The CloudWatch dashboard of the pipeline's health.

locals {
  submit_metrics = { for metric in ["Submitted", "Refused", "Retried", "Ignored", "Points", "Requests", "WireBytes", "FetchMilliseconds", "PostMilliseconds", "DelayMilliseconds"] :
    metric => ["DatadogStats", metric, "FunctionName", aws_lambda_function.metric_submit.function_name]
  }
  queue_names = [aws_sqs_queue.stats.name, aws_sqs_queue.dead_letter.name, aws_sqs_queue.rejected.name]

  # Two graphs a row. CloudWatch writes a metric as a list: namespace, metric, dimension, value, options.
  graphs = [
    {
      title     = "Files by outcome"
      statistic = "Sum"
      metrics   = [local.submit_metrics.Submitted, local.submit_metrics.Refused, local.submit_metrics.Retried, local.submit_metrics.Ignored]
    },
    {
      title     = "Points and requests to Datadog"
      statistic = "Sum"
      metrics   = [local.submit_metrics.Points, local.submit_metrics.Requests]
    },
    {
      title     = "Delay from upload to Datadog, milliseconds"
      statistic = "Maximum"
      metrics   = [for statistic in ["p50", "p95", "p99", "Maximum"] : concat(local.submit_metrics.DelayMilliseconds, [{ stat = statistic, label = statistic }])]
    },
    {
      title     = "Time of a batch, milliseconds"
      statistic = "Average"
      metrics   = [local.submit_metrics.FetchMilliseconds, local.submit_metrics.PostMilliseconds, ["AWS/Lambda", "Duration", "FunctionName", aws_lambda_function.metric_submit.function_name]]
    },
    {
      title     = "Messages waiting"
      statistic = "Maximum"
      metrics   = [for name in local.queue_names : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", name]]
    },
    {
      title     = "Oldest message, seconds"
      statistic = "Maximum"
      metrics   = [for name in local.queue_names : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", name]]
    },
    {
      title     = "Bytes sent to Datadog"
      statistic = "Sum"
      metrics   = [local.submit_metrics.WireBytes]
    },
    {
      title     = "Errors and throttles"
      statistic = "Sum"
      metrics = concat(
        [for name in values(local.functions) : ["AWS/Lambda", "Errors", "FunctionName", name]],
        [for name in values(local.functions) : ["AWS/Lambda", "Throttles", "FunctionName", name]],
      )
    },
    {
      title     = "Concurrent submitters"
      statistic = "Maximum"
      metrics   = [["AWS/Lambda", "ConcurrentExecutions", "FunctionName", aws_lambda_function.metric_submit.function_name]]
    },
  ]

  console = lookup({ aws-cn = "console.amazonaws.cn", aws-us-gov = "console.amazonaws-us-gov.com" }, local.partition, "console.aws.amazon.com")
}

resource "aws_cloudwatch_dashboard" "pipeline" {
  dashboard_name = "${var.name}-${local.region}" # dashboards are global

  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type       = "alarm"
        x          = 0
        y          = 0
        width      = 24
        height     = 3
        properties = { title = "Alarms", alarms = [for name in slice(local.alarm_names, 0, min(100, length(local.alarm_names))) : "${local.alarm_arn}${name}"] } # it shows no more
      }],
      [for index, graph in local.graphs : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 3 + 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = graph.title
          stat    = graph.statistic
          metrics = graph.metrics
          region  = local.region
          view    = "timeSeries"
          period  = 60
        }
      }],
    )
  })
}
